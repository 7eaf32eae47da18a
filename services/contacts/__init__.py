"""The people and companies of the CRM: one stream per contact."""

"""The deals of the CRM: pipelines, stages, forecast."""

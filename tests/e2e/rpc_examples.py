"""An example of every mutation, for test_every_rpc.py."""

import base64
from datetime import date, timedelta
from itertools import count, cycle

# What there must be before each mutation, and the mutation; `{id}` is new for each test, so is
# `{date}`, and `{currency}` is another than the last time.
DAYS = (date(2000, 1, 1) + timedelta(days=number) for number in count())
CODES = cycle(("USD", "GBP"))
CONTACT = (
    "contacts.v1.ContactsService/CreateContact",
    {"contact_id": "{id}", "email": "{id}@x.org"},
)
DEAL = ("deals.v1.DealsService/OpenDeal", {"deal_id": "{id}", "display_name": "A deal"})
KINDS = {"open": "STAGE_KIND_OPEN", "won": "STAGE_KIND_WON", "lost": "STAGE_KIND_LOST"}
STAGES = [
    {"stage_id": stage_id, "settings": {"display_name": stage_id, "kind": kind}}
    for stage_id, kind in KINDS.items()
]
WON = ("deals.v1.DealsService/WinDeal", {"name": "deals/{id}"})
PIPELINE = (
    "deals.v1.PipelinesService/CreatePipeline",
    {"pipeline_id": "{id}", "display_name": "A pipeline", "stages": STAGES},
)
NEXT = {"stage": {**STAGES[0], "stage_id": "next"}}
NEXT_STAGE = ("deals.v1.PipelinesService/AddStage", {"name": "pipelines/{id}", **NEXT})
NEXT_GONE = (
    "deals.v1.PipelinesService/ArchiveStage",
    {"name": "pipelines/{id}/stages/next"},
)
ARCHIVED = ("deals.v1.PipelinesService/ArchivePipeline", {"name": "pipelines/{id}"})
CHANGED = {"settings": {"display_name": "Another", "kind": "STAGE_KIND_OPEN"}}
RATE = {
    "from_currency": "USD",
    "to_currency": "EUR",
    "effective_date": "{date}",
    "rate": "0.92",
}
EXCHANGE_RATE = ("deals.v1.CurrenciesService/SetExchangeRate", RATE)
BASE_CURRENCY = ("deals.v1.CurrenciesService/SetBaseCurrency", {"currency": "EUR"})
CONTRACT = (
    "deals.v1.ContractsService/DraftContract",
    {
        "contract_id": "{id}",
        "terms": {
            "reference": "{id}",
            "start_date": "2026-01-01",
            "term_months": 12,
            "auto_renew": True,
        },
    },
)
CONTRACT_SUBMITTED = [
    CONTRACT,
    ("deals.v1.ContractsService/SubmitContract", {"name": "contracts/{id}"}),
]
CONTRACT_APPROVED = [
    *CONTRACT_SUBMITTED,
    ("deals.v1.ContractsService/ApproveContract", {"name": "contracts/{id}"}),
]
SIGNATURES = [
    {"name": "contracts/{id}", "party": party, "signatory": "Ada"}
    for party in ("CONTRACT_PARTY_CUSTOMER", "CONTRACT_PARTY_COMPANY")
]
CONTRACT_SIGNED = [
    *CONTRACT_APPROVED,
    *(("deals.v1.ContractsService/SignContract", signature) for signature in SIGNATURES),
]
CONTRACT_ACTIVE = [
    *CONTRACT_SIGNED,
    ("deals.v1.ContractsService/ActivateContract", {"name": "contracts/{id}"}),
]
NOTICE = {"name": "contracts/{id}", "party": "CONTRACT_PARTY_CUSTOMER"}
OFFERED = {
    "line_items": {
        "currency": "EUR",
        "items": [{"display_name": "A loom", "unit_price": "1200", "tax_percent": "19"}],
    }
}
QUOTES = "deals.v1.QuotesService"
QUOTE = (f"{QUOTES}/CreateQuote", {"quote_id": "{id}", "deal": "deals/{id}", "details": OFFERED})
QUOTE_ITSELF = {"name": "quotes/{id}"}
QUOTED = [DEAL, QUOTE]
QUOTE_SUBMITTED = [*QUOTED, (f"{QUOTES}/SubmitQuote", QUOTE_ITSELF)]
QUOTE_APPROVED = [*QUOTE_SUBMITTED, (f"{QUOTES}/ApproveQuote", QUOTE_ITSELF)]
QUOTE_SENT = [*QUOTE_APPROVED, (f"{QUOTES}/SendQuote", QUOTE_ITSELF)]
OTHER_QUOTE = (QUOTE[0], {**QUOTE[1], "quote_id": "other-{id}"})
QUOTA = {
    "owner": "members/{id}",
    "period": "2026-Q4",
    "amount": {"amount_minor": 100, "currency": "EUR"},
}
SET_QUOTA = ("deals.v1.ForecastsService/SetQuota", QUOTA)
SUBMISSION = {"owner": "members/{id}", "period": "2026", "call": {"commit": QUOTA["amount"]}}
SOURCE = (
    "events.v1.SourcesService/CreateSource",
    {"source_id": "{id}", "display_name": "A source"},
)
SOURCE_OFF = ("events.v1.SourcesService/DisableSource", {"name": "sources/{id}"})
JUDGED = {
    "one": {"type": "user_id", "value": "{id}"},
    "other": {"type": "anonymous_id", "value": "{id}"},
}
FLAGGED = {"identifier": JUDGED["one"]}
BLOCKED = ("identity.v1.FlagsService/BlockIdentifier", FLAGGED)
ALLOWED = ("identity.v1.FlagsService/AllowIdentifier", FLAGGED)
LINKED = ("identity.v1.VerdictsService/LinkIdentifiers", JUDGED)
CUT = ("identity.v1.VerdictsService/CutIdentifiers", JUDGED)
ERASED = {"type": "user_id", "value": "{id}"}
ERASURE = (
    "identity.v1.ErasuresService/CreateErasure",
    {"erasure_id": "{id}", "identifier": ERASED},
)
MATCH_RUN = ("identity.v1.MatchRunsService/StartMatchRun", {"match_run_id": "{id}"})
SUGGESTED_MATCH = ("identity.v1.MatchSuggestionsService/SuggestMatch", JUDGED)
# Rules that are as those built in, so nobody's profiles become others.
RULES = (
    "identity.v1.RuleSetsService/DraftRuleSet",
    {"rule_set_id": "{id}", "display_name": "Rules", "rules": {}},
)
RULES_THEMSELVES = {"name": "ruleSets/{id}"}
PURPOSE = (
    "identity.v1.ConsentsService/CreatePurpose",
    {
        "purpose_id": "{id}",
        "display_name": "A purpose",
        "lawful_basis": "LAWFUL_BASIS_CONSENT",
        "categories": ["{id}"],
    },
)
CONSENT = {"name": "profiles/user_id:{id}", "purpose": "purposes/{id}", "source": "A test"}
OBJECTED = ("identity.v1.ConsentsService/DenyConsent", CONSENT)
SUPPRESSED = {"type": "user_id", "value": "{id}"}
SUPPRESSION = ("events.v1.SuppressionsService/SuppressIdentifier", SUPPRESSED)
UNSUPPRESSION = ("events.v1.SuppressionsService/UnsuppressIdentifier", SUPPRESSED)
SENT = (
    "events.v1.EventsService/RecordCustomerEvents",
    {"customer_events": [{"message_id": "{id}", "type": 3, "user_id": "{id}"}]},
)
QUARANTINED = {"names": ["quarantinedEvents/{id}"]}
RULE = {"conditions": [{"trait": {"trait": "plan", "operator": "TRAIT_OPERATOR_EXISTS"}}]}
SEGMENT = (
    "segments.v1.SegmentsService/CreateSegment",
    {"segment_id": "{id}", "display_name": "A segment", "rule": RULE},
)
PRODUCTS = (
    "events.v1.ProductsService/RecordProducts",
    {"products": [{"product_id": "{id}", "entry": {"display_name": "A product"}}]},
)
PLAN_RULE = {
    "type": "CUSTOMER_EVENT_TYPE_TRACK",
    "event_name": "Order Completed",
    "schema": "{}",
    "policy": "VIOLATION_POLICY_ALLOW_AND_FLAG",
}
PLAN = (
    "events.v1.TrackingPlansService/CreateTrackingPlan",
    {"tracking_plan_id": "{id}", "display_name": "A plan", "content": {"rules": [PLAN_RULE]}},
)
# Of a source that nobody has: what others do meanwhile is not changed.
CHANGES = {"sources": ["sources/none"], "steps": [{"drop": {"path": "properties.card"}}]}
TRANSFORMATION = (
    "events.v1.TransformationsService/CreateTransformation",
    {"transformation_id": "{id}", "display_name": "A transformation", "settings": CHANGES},
)
RETENTION_RULE = (
    "events.v1.RetentionService/CreateRetentionRule",
    {
        "retention_rule_id": "{id}",
        "display_name": "A rule",
        "settings": {"event_name": "Never Sent", "keep_days": 3650},
    },
)
IMPORT = (
    "events.v1.ImportsService/CreateImport",
    {
        "import_id": "{id}",
        "display_name": "A file",
        "format": {"type": "IMPORT_FILE_TYPE_CSV"},
        "mapping": {"fields": [{"target": "type", "constant": "track"}]},
    },
)
IDENTIFY = {"fields": [{"target": "type", "constant": "identify"}]}
# Rows without a person are refused, so nothing is brought; so many that there is time to pause.
CHUNK = (
    "events.v1.ImportsService/UploadImportChunk",
    {"name": "imports/{id}", "chunk": base64.b64encode(b"name\n" + b"Row\n" * 20_000).decode()},
)
UPLOADED = [
    IMPORT,
    CHUNK,
    ("events.v1.ImportsService/FinishImportUpload", {"name": "imports/{id}"}),
]
STARTED = [*UPLOADED, ("events.v1.ImportsService/StartImport", {"name": "imports/{id}"})]
PAUSED = [*STARTED, ("events.v1.ImportsService/PauseImport", {"name": "imports/{id}"})]
CANCELLED = ("events.v1.ImportsService/CancelImport", {"name": "imports/{id}"})
WEBHOOK = (
    "events.v1.WebhooksService/CreateWebhook",
    {
        "webhook_id": "{id}",
        "display_name": "A webhook",
        "source": "sources/forms",
        "signature": {"preset": "WEBHOOK_PRESET_GITHUB"},
        "mapping": {"type": "'identify'", "user_id": "body.id"},
    },
)
EXAMPLES = {
    "CreateContact": [CONTACT],
    "RenameContact": [CONTACT, {"name": "contacts/{id}", "given_name": "Ada"}],
    "ChangeContactEmail": [CONTACT, {"name": "contacts/{id}", "email": "{id}@y.org"}],
    "ArchiveContact": [CONTACT, {"name": "contacts/{id}"}],
    "OpenDeal": [DEAL],
    "MoveDealStage": [DEAL, {"name": "deals/{id}", "stage": "pipelines/sales/stages/proposal"}],
    "UpdateDeal": [DEAL, {"name": "deals/{id}", "deal": {"next_step": "call"}}],
    "MoveDealToPipeline": [
        PIPELINE,
        DEAL,
        {"name": "deals/{id}", "stage": "pipelines/{id}/stages/open"},
    ],
    "WinDeal": [DEAL, {"name": "deals/{id}"}],
    "ReopenDeal": [DEAL, WON, {"name": "deals/{id}"}],
    "DeleteDeal": [DEAL, {"name": "deals/{id}"}],
    "UndeleteDeal": [
        DEAL,
        ("deals.v1.DealsService/DeleteDeal", {"name": "deals/{id}"}),
        {"name": "deals/{id}"},
    ],
    "LoseDeal": [DEAL, {"name": "deals/{id}", "reason": "price"}],
    "ImportDeals": [
        {
            "deals": [
                {
                    "deal_id": "{id}",
                    "details": {"display_name": "A deal"},
                    "open_time": "2026-01-02T03:04:05Z",
                }
            ]
        }
    ],
    "CreatePipeline": [PIPELINE],
    "RenamePipeline": [PIPELINE, {"name": "pipelines/{id}", "display_name": "Another"}],
    "ArchivePipeline": [PIPELINE, {"name": "pipelines/{id}"}],
    "RestorePipeline": [PIPELINE, ARCHIVED, {"name": "pipelines/{id}"}],
    "AddStage": [PIPELINE, {"name": "pipelines/{id}", **NEXT}],
    "ChangeStage": [PIPELINE, {"name": "pipelines/{id}/stages/open", **CHANGED}],
    "ArrangeStages": [PIPELINE, {"name": "pipelines/{id}", "stage_ids": ["lost", "open", "won"]}],
    "ArchiveStage": [PIPELINE, NEXT_STAGE, {"name": "pipelines/{id}/stages/next"}],
    "RestoreStage": [PIPELINE, NEXT_STAGE, NEXT_GONE, {"name": "pipelines/{id}/stages/next"}],
    "SetBaseCurrency": [BASE_CURRENCY, {"currency": "{currency}"}],
    "SetExchangeRate": [EXCHANGE_RATE, {**RATE, "rate": "0.93"}],
    "SetQuota": [SET_QUOTA, {**QUOTA, "amount": {"amount_minor": 200, "currency": "EUR"}}],
    "RemoveQuota": [SET_QUOTA, {"name": "quotas/owner_{id}_2026-Q4"}],
    "SubmitForecast": [SUBMISSION],
    "RemoveExchangeRate": [EXCHANGE_RATE, {"name": "exchangeRates/USD-EUR-{date}"}],
    "DraftContract": [CONTRACT],
    "UpdateContract": [CONTRACT, {"name": "contracts/{id}", "terms": {"owner": "members/ada"}}],
    "SubmitContract": [CONTRACT, {"name": "contracts/{id}"}],
    "ApproveContract": [*CONTRACT_SUBMITTED, {"name": "contracts/{id}"}],
    "RejectContract": [*CONTRACT_SUBMITTED, {"name": "contracts/{id}", "reason": "price"}],
    "SignContract": [*CONTRACT_APPROVED, SIGNATURES[0]],
    "ActivateContract": [*CONTRACT_SIGNED, {"name": "contracts/{id}"}],
    "GiveContractNotice": [*CONTRACT_ACTIVE, NOTICE],
    "TerminateContract": [*CONTRACT_ACTIVE, {"name": "contracts/{id}", "reason": "insolvent"}],
    "RenewContract": [*CONTRACT_ACTIVE, {"name": "contracts/{id}", "reference": "{id}-next"}],
    "CreateQuote": QUOTED,
    "UpdateQuote": [*QUOTED, {**QUOTE_ITSELF, "details": {"terms": "30 days"}}],
    "SubmitQuote": [*QUOTED, QUOTE_ITSELF],
    "ApproveQuote": [*QUOTE_SUBMITTED, QUOTE_ITSELF],
    "RejectQuote": [*QUOTE_SUBMITTED, {**QUOTE_ITSELF, "reason": "too cheap"}],
    "SendQuote": [*QUOTE_APPROVED, QUOTE_ITSELF],
    "AcceptQuote": [*QUOTE_SENT, {**QUOTE_ITSELF, "accepted_by": "Ada"}],
    "DeclineQuote": [*QUOTE_SENT, {**QUOTE_ITSELF, "reason": "price"}],
    "ReviseQuote": [*QUOTE_SENT, QUOTE_ITSELF],
    "MakeQuotePrimary": [*QUOTED, OTHER_QUOTE, {"name": "quotes/other-{id}"}],
    "CreateSource": [SOURCE],
    "ConfigureSource": [SOURCE, {"name": "sources/{id}", "display_name": "Another"}],
    "DisableSource": [SOURCE, {"name": "sources/{id}"}],
    "EnableSource": [SOURCE, SOURCE_OFF, {"name": "sources/{id}"}],
    "RotateWriteKey": [SOURCE, {"name": "sources/{id}"}],
    "RevokeWriteKey": [SOURCE, {"name": "sources/{id}", "key_id": "{key_id}"}],
    "SuppressIdentifier": [SUPPRESSION, UNSUPPRESSION, SUPPRESSED],
    "UnsuppressIdentifier": [SUPPRESSION, SUPPRESSED],
    "LinkIdentifiers": [CUT, JUDGED],
    "CutIdentifiers": [LINKED, JUDGED],
    "ClearVerdict": [LINKED, JUDGED],
    "BlockIdentifier": [ALLOWED, FLAGGED],
    "AllowIdentifier": [BLOCKED, FLAGGED],
    "ClearIdentifierFlag": [BLOCKED, FLAGGED],
    "CreateErasure": [{"erasure_id": "{id}", "identifier": ERASED}],
    "RetryErasure": [ERASURE, {"name": "erasures/{id}"}],
    "StartMatchRun": [{"match_run_id": "{id}"}],
    "CancelMatchRun": [MATCH_RUN, {"name": "matchRuns/{id}"}],
    "SuggestMatch": [JUDGED],
    "AcceptMatchSuggestion": [SUGGESTED_MATCH, {"name": "{suggestion}"}],
    "RejectMatchSuggestion": [SUGGESTED_MATCH, {"name": "{suggestion}"}],
    "DraftRuleSet": [RULES],
    "PreviewRuleSet": [RULES, RULES_THEMSELVES],
    "PublishRuleSet": [RULES, {**RULES_THEMSELVES, "skip_preview": True}],
    "DiscardRuleSet": [RULES, RULES_THEMSELVES],
    "CreatePurpose": [PURPOSE],
    "ArchivePurpose": [PURPOSE, {"name": "purposes/{id}"}],
    "GrantConsent": [PURPOSE, OBJECTED, CONSENT],
    "DenyConsent": [PURPOSE, OBJECTED, CONSENT],
    "WithdrawConsent": [PURPOSE, OBJECTED, CONSENT],
    "ResubmitQuarantinedEvents": [SENT, QUARANTINED],
    "DiscardQuarantinedEvents": [SENT, {**QUARANTINED, "comment": "A test"}],
    "CreateImport": [IMPORT],
    "FinishImportUpload": [IMPORT, CHUNK, {"name": "imports/{id}"}],
    "MapImport": [IMPORT, {"name": "imports/{id}", "mapping": IDENTIFY}],
    "CheckImport": [*UPLOADED, {"name": "imports/{id}"}],
    "StartImport": [*UPLOADED, {"name": "imports/{id}"}],
    "PauseImport": [*STARTED, {"name": "imports/{id}"}],
    "ResumeImport": [*PAUSED, {"name": "imports/{id}"}],
    "CancelImport": [IMPORT, {"name": "imports/{id}"}],
    "UndoImport": [IMPORT, CANCELLED, {"name": "imports/{id}"}],
    "CreateSegment": [SEGMENT],
    "RecordProducts": [PRODUCTS],
    "ArchiveSegment": [SEGMENT, {"name": "segments/{id}"}],
    "CreateTrackingPlan": [PLAN],
    "DraftTrackingPlan": [PLAN, {"name": "trackingPlans/{id}", "content": {}}],
    "PublishTrackingPlan": [PLAN, {"name": "trackingPlans/{id}"}],
    "ArchiveTrackingPlan": [PLAN, {"name": "trackingPlans/{id}"}],
    "CreateTransformation": [TRANSFORMATION],
    "ConfigureTransformation": [
        TRANSFORMATION,
        {"name": "transformations/{id}", "display_name": "Another", "settings": CHANGES},
    ],
    "EnableTransformation": [TRANSFORMATION, {"name": "transformations/{id}"}],
    "DisableTransformation": [
        TRANSFORMATION,
        ("events.v1.TransformationsService/EnableTransformation", {"name": "transformations/{id}"}),
        {"name": "transformations/{id}"},
    ],
    "CreateRetentionRule": [RETENTION_RULE],
    "EnableRetentionRule": [RETENTION_RULE, {"name": "retentionRules/{id}"}],
    "DisableRetentionRule": [
        RETENTION_RULE,
        ("events.v1.RetentionService/EnableRetentionRule", {"name": "retentionRules/{id}"}),
        {"name": "retentionRules/{id}"},
    ],
    "CreateWebhook": [WEBHOOK],
    "ConfigureWebhook": [
        WEBHOOK,
        {
            "name": "webhooks/{id}",
            "display_name": "Another name",
            "signature": {"token": {"header": "x-token"}},
            "mapping": {"type": "'identify'", "anonymous_id": "body.id"},
        },
    ],
    "DisableWebhook": [WEBHOOK, {"name": "webhooks/{id}"}],
    "EnableWebhook": [
        WEBHOOK,
        ("events.v1.WebhooksService/DisableWebhook", {"name": "webhooks/{id}"}),
        {"name": "webhooks/{id}"},
    ],
    "RotateWebhookSecret": [WEBHOOK, {"name": "webhooks/{id}", "secret": "a secret of the sender"}],
}


# What is named by the methods of a service, or by a method that names something else.
COLLECTIONS = {
    "ContactsService": "contacts",
    "ContractsService": "contracts",
    "DealsService": "deals",
    "PipelinesService": "pipelines",
    "CurrenciesService": "exchangeRates",
    "QuotesService": "quotes",
    "ForecastsService": "quotas",
    "EventsService": "customerEvents",
    "QuarantineService": "quarantinedEvents",
    "ImportsService": "imports",
    "SourcesService": "sources",
    "SuppressionsService": "suppressions",
    "ProductsService": "products",
    "OrdersService": "orders",
    "TrackingPlansService": "trackingPlans",
    "TransformationsService": "transformations",
    "RetentionService": "retentionRules",
    "WebhooksService": "webhooks",
    "IdentityService": "profiles",
    "ExplanationsService": "profiles",
    "HistoryService": "profiles",
    "AccountsService": "accounts",
    "ErasuresService": "erasures",
    "MatchRunsService": "matchRuns",
    "MatchSuggestionsService": "matchSuggestions",
    "RuleSetsService": "ruleSets",
    "ConsentsService": "profiles",
    "SubjectExportsService": "profiles",
    "ArchivePurpose": "purposes",
    "GetPurpose": "purposes",
    "SegmentsService": "segments",
    "GatewayService": "contacts",
    "ChangeStage": "pipelines/sales/stages",
    "ArchiveStage": "pipelines/sales/stages",
    "RestoreStage": "pipelines/sales/stages",
}

"""PyPI segment-analytics-python: `python segment_python.py <url> <write key> <user>`."""

import json
import sys
from datetime import UTC, datetime

from segment.analytics.client import Client

url, write_key, user = sys.argv[1:4]
errors = []
client = Client(
    write_key,
    host=url,
    gzip=True,
    upload_interval=0.2,
    on_error=lambda error, _: errors.append(str(error)),
)
at = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
order = {"sku": "X1", "total": 19.99, "quantity": 2}
company = {"name": "Analytical Engines", "employees": 3}
client.identify(user, {"email": "ada@example.com", "plan": "gold"}, timestamp=at)
client.track(user, "Order Completed", order, timestamp=at)
client.page(user, "Docs", "Home", {"section": "guide"}, timestamp=at)
client.screen(user, "Docs", "Start", {"tab": "home"}, timestamp=at)
client.group(user, f"{user}-group", company, timestamp=at)
client.alias(f"{user}-before", user, timestamp=at)
client.flush()
client.join()
sys.stdout.write(json.dumps({"errors": errors}) + "\n")

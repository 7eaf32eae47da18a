// npm @segment/analytics-next, settings from the gateway, too
import { openWindow } from "./browser.mjs";
import { before, failed, group, story, tell, time, url, user, writeKey } from "./story.mjs";

openWindow("http://shop.example/cart?step=1");
const { AnalyticsBrowser } = await import("@segment/analytics-next");
const [analytics] = await AnalyticsBrowser.load({ writeKey, cdnURL: url }, { retryQueue: true });
let delivered = 0;
analytics.on("error", failed);
analytics.on("delivery_failure", failed);
analytics.on("delivery_success", () => (delivered += 1));

const at = { timestamp: time };
await analytics.identify(user, story.identify, at);
await analytics.track("Order Completed", story.track, at);
await analytics.page("Docs", "Home", story.page, at);
await analytics.screen("Docs", "Start", story.screen, at);
await analytics.group(group, story.group, at);
await analytics.alias(user, before, at);
setTimeout(tell, Number(process.argv[5] ?? 500));

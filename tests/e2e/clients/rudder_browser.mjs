// npm @rudderstack/analytics-js, source configuration from the gateway, too
import { openWindow } from "./browser.mjs";
import { before, failed, group, story, tell, url, user, writeKey } from "./story.mjs";

openWindow("http://shop.example/cart?step=1");
const { RudderAnalytics } = await import("@rudderstack/analytics-js/bundled");
const analytics = new RudderAnalytics();
analytics.load(writeKey, url, {
  configUrl: url,
  logLevel: "ERROR",
  // It would be loaded from the maker's own network.
  polyfillIfRequired: false,
  useBeacon: false,
});
await new Promise((ready) => analytics.ready(ready));

const told = [
  (done) => analytics.identify(user, story.identify, done),
  (done) => analytics.track("Order Completed", story.track, done),
  (done) => analytics.page("Docs", "Home", story.page, done),
  (done) => analytics.group(group, story.group, done),
  (done) => analytics.alias(user, before, done),
];
for (const tellOne of told) {
  await new Promise((done) => tellOne(done)).catch(failed);
}
setTimeout(tell, Number(process.argv[5] ?? 2000));

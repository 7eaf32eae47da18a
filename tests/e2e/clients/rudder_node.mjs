// npm @rudderstack/rudder-sdk-node
import RudderAnalytics from "@rudderstack/rudder-sdk-node";
import { before, failed, group, story, tell, time, url, user, writeKey } from "./story.mjs";

const analytics = new RudderAnalytics(writeKey, {
  dataPlaneUrl: url,
  flushAt: 6,
  flushInterval: 200,
  logLevel: "error",
  errorHandler: failed,
});
const told = [
  ["identify", { userId: user, traits: story.identify, originalTimestamp: time }],
  ["track", { userId: user, event: "Order Completed", properties: story.track, originalTimestamp: time }],
  ["page", { userId: user, category: "Docs", name: "Home", properties: story.page, originalTimestamp: time }],
  ["screen", { userId: user, name: "Start", properties: story.screen, originalTimestamp: time }],
  ["group", { userId: user, groupId: group, traits: story.group, originalTimestamp: time }],
  ["alias", { userId: user, previousId: before, originalTimestamp: time }],
];
await Promise.all(
  told.map(
    ([call, message]) =>
      new Promise((done) => {
        analytics[call](message, (error) => {
          if (error) failed(error);
          done();
        });
      }),
  ),
);
tell();

// npm @segment/analytics-node
import { Analytics } from "@segment/analytics-node";
import { before, errors, failed, group, story, tell, time, url, user, writeKey } from "./story.mjs";

const analytics = new Analytics({ writeKey, host: url, flushAt: 6, maxRetries: 5 });
analytics.on("error", failed);

analytics.identify({ userId: user, traits: story.identify, timestamp: time });
analytics.track({ userId: user, event: "Order Completed", properties: story.track, timestamp: time });
analytics.page({ userId: user, category: "Docs", name: "Home", properties: story.page, timestamp: time });
analytics.screen({ userId: user, name: "Start", properties: story.screen, timestamp: time });
analytics.group({ userId: user, groupId: group, traits: story.group, timestamp: time });
analytics.alias({ userId: user, previousId: before, timestamp: time });
await analytics.closeAndFlush({ timeout: 30000 });
tell(errors);

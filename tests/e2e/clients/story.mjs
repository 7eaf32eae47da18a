// What each client in JavaScript tells: `node <client>.mjs <url> <write key> <user>`.
export const [url, writeKey, user] = process.argv.slice(2);
export const before = `${user}-before`;
export const group = `${user}-group`;
export const time = new Date("2026-01-02T03:04:05.678Z");

export const story = {
  identify: { email: "ada@example.com", plan: "gold" },
  track: { sku: "X1", total: 19.99, quantity: 2 },
  page: { section: "guide" },
  screen: { tab: "home" },
  group: { name: "Analytical Engines", employees: 3 },
};

export const errors = [];

export function failed(error) {
  errors.push(String(error?.reason ?? error?.message ?? error));
}

// The last line is read by the test.
export function tell() {
  console.log(JSON.stringify({ errors }));
  process.exit(0);
}

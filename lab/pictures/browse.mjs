// Open a page in Chromium, and write a picture of it:
//
//     node browse.mjs '{"url": …, "picture": …, "width": …, "height": …,
//                       "milliseconds": …, "packages": {ADDRESS: FOLDER}}'
//
// What begins with ADDRESS is read from FOLDER. Of other machines, nothing is read.
// Messages of the page go to standard output.

import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire(join(process.cwd(), "/"))("playwright-core");
const job = JSON.parse(process.argv[2]);

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const page = await browser.newPage({
  viewport: { width: job.width, height: job.height },
});
page.on("console", (message) => console.log(`${message.type()}: ${message.text()}`));
page.on("pageerror", (error) => console.log(`error: ${error.message}`));
page.on("response", (response) => {
  if (!response.ok() && response.status() !== 304) {
    console.log(`${response.status()}: ${response.url()}`);
  }
});
await page.route("**/*", (route) => {
  const url = route.request().url();
  for (const [address, folder] of Object.entries(job.packages)) {
    if (url.startsWith(address)) {
      const headers = { "Access-Control-Allow-Origin": "*" };
      return route.fulfill({ path: join(folder, url.slice(address.length)), headers });
    }
  }
  const isHere = url.startsWith("http://127.0.0.1:") || !url.startsWith("http");
  return isHere ? route.continue() : route.abort();
});
await page.goto(job.url);
await page.waitForTimeout(job.milliseconds);
if (job.click) {
  await page.click(job.click);
  await page.waitForTimeout(1000);
}
await page.screenshot({ path: job.picture });
await browser.close();

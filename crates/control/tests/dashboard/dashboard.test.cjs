// What a person sees and does, in Chromium. The made-up daemon is at BASE; DIRECTOR changes what it does; pictures go to SHOTS.
"use strict";
const { after, before, beforeEach, test } = require("node:test");
const assert = require("node:assert/strict");
const path = require("node:path");
const { chromium } = require("playwright-core");
const axe = require("axe-core");

const { BASE, DIRECTOR, SHOTS } = process.env;
// Without a window. Its sandbox refuses to run as root.
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars"];
const DESK = { width: 1280, height: 900 };
const PHONE = { width: 360, height: 780 };

let browser;
before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
});
after(() => browser.close());
beforeEach(async () => {
  for (const what of ["breaker/closed", "markup/off", "frozen/off", "token/off", "config/good", "rush/off"]) await lead(what);
});

const lead = async (what) => assert.equal((await fetch(`${DIRECTOR}/${what}`, { method: "POST" })).status, 200);
const calls = async () => (await fetch(`${DIRECTOR}/calls`)).json();

// A page, in which any error of a script and any refusal of the policy is a fault of the test.
async function open(options = {}, where = "/") {
  const context = await browser.newContext({ viewport: DESK, colorScheme: "light", reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(String(error)));
  page.on("console", (line) => {
    if (line.type() === "error" && !/ERR_CONNECTION|ERR_INCOMPLETE|status of 401/.test(line.text())) page.faults.push(line.text());
  });
  await page.goto(BASE + where);
  return page;
}

async function close(page) {
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

const live = (page) => page.waitForSelector('#live[data-live="live"]');
const row = (page, name) => page.locator("tbody tr", { has: page.getByRole("rowheader", { name }) });
const cell = (page, name, label) => row(page, name).locator(`[data-label="${label}"]`);
const shot = (page, name, options = {}) => page.screenshot({ path: path.join(SHOTS, `${name}.png`), ...options });

// Neither text nor table goes past the sides.
async function fits(page) {
  const wide = await page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    const out = [...document.querySelectorAll("body *")].filter((element) => {
      const box = element.getBoundingClientRect();
      return box.width > 0 && box.right > width + 0.5 && !element.closest(".hidden, .skip, .uplot, svg");
    });
    return { scroll: document.documentElement.scrollWidth - width, out: out.slice(0, 5).map((element) => element.outerHTML.slice(0, 120)) };
  });
  assert.deepEqual(wide, { scroll: 0, out: [] });
}

// axe-core, run in the page from outside of it, where its policy does not reach.
async function accessible(page) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  assert.deepEqual(violations.map(({ id, impact, nodes }) => [impact, id, nodes.slice(0, 3).map((node) => node.html)]), []);
}

test("it loads and shows what the daemon says", async () => {
  const page = await open();
  assert.match(await page.locator(".verdict").innerText(), /ok\s+All is well\./);
  assert.equal(await row(page, "tunnel.exit-a").count(), 1);
  assert.equal(await row(page, "quad9").count(), 1);
  assert.match(await cell(page, "quad9", "p50").innerText(), /^[0-9.]+ ms$/);
  assert.match(await page.locator("#requests").innerText(), /every connection of the host was in use/);
  await live(page);
  await page.waitForSelector("#chart canvas");
  await fits(page);
  await close(page);
});

test("it goes live: figures change without loading the page again", async () => {
  const page = await open();
  await live(page);
  await page.evaluate(() => (window.same = true));
  const rate = page.locator('[data-request-rate="queries"]');
  await lead("queries/500000");
  await page.waitForFunction(() => Number(document.querySelector('[data-request-rate="queries"]').textContent.replace(/,/g, "")) > 5000);
  assert.match(await rate.innerText(), /^[0-9,]+$/);
  for (const text of await page.locator("[data-request-rate]").allInnerTexts()) assert.match(text, /^[0-9.,]+$/);
  assert.equal(await page.evaluate(() => window.same), true);
  await close(page);
});

test("the script writes figures as the daemon does", async () => {
  await lead("frozen/on");
  const still = await open({ javaScriptEnabled: false });
  const page = await open();
  await live(page);
  for (const table of ["#pools", "#upstreams", "#requests"]) {
    // A rate comes from the last step there, and from the last seconds here.
    const text = (page) => page.locator(`${table} tbody td:not([data-rate]), ${table} tbody th`).allTextContents();
    assert.deepEqual(await text(page), await text(still), table);
  }
  await page.evaluate(() => document.querySelectorAll("[data-rows]").forEach((body) => body.replaceChildren()));
  await page.waitForFunction(() => document.querySelectorAll("#upstreams tbody tr").length > 0);
  const figures = (page) => page.locator("#pools tbody td:not([data-rate]), #pools tbody th").allTextContents();
  assert.deepEqual(await figures(page), await figures(still), "rows made by the script alone");
  await close(page);
  await close(still);
});

test("both themes are to be read, and a choice is remembered", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const page = await open({ colorScheme });
    await live(page);
    await page.waitForSelector("#chart canvas");
    await page.mouse.move(0, 0);
    await accessible(page);
    await shot(page, colorScheme, { fullPage: true });
    await close(page);
  }
  const page = await open({ colorScheme: "dark" });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await ground();
  const button = page.locator("#theme");
  await button.click();
  assert.deepEqual([await button.innerText(), await ground()], ["Dark", dark]);
  await button.click();
  assert.equal(await button.innerText(), "Light");
  const light = await ground();
  assert.notEqual(light, dark);
  await page.reload();
  assert.deepEqual([await button.innerText(), await ground()], ["Light", light]);
  await close(page);
});

test("a breaker that opens is seen, in words too, and closes again", async () => {
  const page = await open();
  await live(page);
  assert.equal(await cell(page, "cloudflare", "Breaker").locator(".state").innerText(), "closed");
  await lead("rush/on");
  await lead("breaker/open");
  await page.waitForFunction(() => document.querySelector(".health").dataset.word === "degraded");
  assert.match(await cell(page, "cloudflare", "Breaker").innerText(), /open\s+retry in 3\.80 s/);
  assert.equal(await cell(page, "cloudflare", "Health").innerText(), "down");
  assert.match(await page.locator("#troubles").innerText(), /cloudflare is down: connect to 1\.1\.1\.1:443/);
  assert.match(await page.title(), /^degraded/);
  await page.waitForFunction(() => document.querySelector("#troubles").textContent.includes("pool https is full"));
  assert.equal(await cell(page, "https", "State").innerText(), "full");
  await accessible(page);
  await page.waitForSelector("#chart canvas");
  await shot(page, "outage", { fullPage: false });
  await lead("rush/off");
  await lead("breaker/closed");
  await page.waitForFunction(() => document.querySelector(".health").dataset.word === "ok");
  assert.equal(await cell(page, "cloudflare", "Breaker").innerText(), "closed");
  await close(page);
});

test("a phone's width is enough", async () => {
  for (const javaScriptEnabled of [true, false]) {
    for (const where of ["/", "/pools/dns"]) {
      const page = await open({ viewport: PHONE, javaScriptEnabled }, where);
      if (javaScriptEnabled) await live(page);
      if (javaScriptEnabled && where === "/") await page.waitForSelector("#chart canvas");
      for (const summary of await page.locator("summary").all()) await summary.click();
      await fits(page);
      if (javaScriptEnabled) await accessible(page);
      await close(page);
    }
  }
  const page = await open({ viewport: PHONE });
  await live(page);
  await page.waitForSelector("#chart canvas");
  await shot(page, "phone", { clip: { x: 0, y: 0, width: 360, height: 1500 }, fullPage: true });
  await close(page);
});

test("without JavaScript all is readable and every action works", async () => {
  const page = await open({ javaScriptEnabled: false });
  assert.match(await page.locator("#live").innerText(), /as of \d\d:\d\d:\d\d UTC · Reload/);
  assert.match(await page.locator(".hint").innerText(), /JavaScript is off/);
  assert.equal(await page.locator("svg.spark").count(), 6);
  assert.equal(await page.locator(".scripted:visible").count(), 0);
  await fits(page);
  await shot(page, "no-javascript");
  let done = (await calls()).length;
  const then = async (words, called) => {
    assert.match(await page.locator(".outcome").innerText(), words);
    const { y } = await page.locator(".outcome").boundingBox();
    assert.ok(y >= 0 && y < 200, "the outcome is in sight");
    const all = await calls();
    assert.deepEqual(all.slice(done), called);
    done = all.length;
  };
  await page.getByRole("button", { name: "Reload the config" }).click();
  await then(/done\s+reload: config \d+ is in force/, ["reload"]);
  await page.reload();
  assert.equal(await page.locator(".outcome").count(), 0, "an outcome is shown once, and a reload does nothing twice");
  await page.getByText("Flush the cache …").click();
  await page.getByLabel("Only this name").fill("www.example.org");
  await page.getByRole("button", { name: "Flush" }).click();
  await then(/4,123 answers forgotten/, ["flush www.example.org"]);
  await page.getByText("Log level …").click();
  await page.getByLabel("Level").selectOption("debug");
  await page.getByRole("button", { name: "Set" }).click();
  await then(/log level: it is debug/, ["log debug 600"]);
  await lead("config/bad");
  await page.getByRole("button", { name: "Reload the config" }).click();
  await then(/refused\s+reload: not done: line 12: unknown key/, ["reload"]);

  await page.getByRole("link", { name: "https", exact: true }).click();
  assert.match(await page.locator("h1").innerText(), /Pool https/);
  await page.getByText("Pause …").click();
  await page.getByRole("button", { name: "Pause" }).click();
  await then(/pause: 2 hosts of pool https/, []);
  assert.equal(await page.locator(".verdict .state").innerText(), "paused");
  await page.getByRole("button", { name: "Resume" }).click();
  assert.equal(await page.locator(".verdict .state").innerText(), "ok");
  await page.getByText("Limits …").click();
  await page.getByLabel("max_per_host").fill("9");
  await page.getByRole("button", { name: "Set" }).click();
  await then(/limits: max_per_host of pool https/, ["limits https.max_per_host"]);
  await page.getByText("Limits …").click();
  await page.getByLabel("min_idle").fill("99");
  await page.getByRole("button", { name: "Set" }).click();
  await then(/limits: not done/, []);
  await close(page);
});

test("a pool has a page that is live", async () => {
  const page = await open({}, "/pools/https");
  await live(page);
  const details = page.locator("details.connections", { hasText: "https://api.example.net" });
  await details.locator("summary").click();
  await page.waitForResponse((answer) => answer.url() === `${BASE}/pools/https`);
  await page.waitForResponse((answer) => answer.url() === `${BASE}/pools/https`);
  assert.equal(await details.evaluate((element) => element.open), true, "what was unfolded stays so");
  await page.getByText("Warm …").click();
  await page.getByLabel("Connections", { exact: true }).fill("2");
  await page.getByRole("button", { name: "Warm" }).click();
  await page.waitForSelector(".outcome:not(.failed)");
  await page.getByText("Limits …").click();
  await accessible(page);
  await fits(page);
  await shot(page, "pool");
  await close(page);
});

test("the keyboard reaches everything, and a filter finds rows", async () => {
  const page = await open();
  await live(page);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "filter");
  await page.keyboard.type("quad9");
  assert.deepEqual(await page.locator("#upstreams tbody tr:visible th span").allTextContents(), ["quad9"]);
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("#upstreams tbody tr:visible").count(), 6);
  // Round the page once: everything that can be used has had the focus, is seen to have it, and nothing held it.
  await page.evaluate(() => document.querySelector(".skip").focus());
  const wanted = await page.locator("a:visible, button:visible, input:visible, summary:visible, select:visible").count();
  const seen = new Set();
  for (let step = 0; step < wanted + 5; step++) {
    const [at, outlined] = await page.evaluate(() => {
      const all = [...document.querySelectorAll("a, button, input, summary, select")];
      return [all.indexOf(document.activeElement), getComputedStyle(document.activeElement).outlineStyle !== "none"];
    });
    if (at >= 0) assert.equal(outlined, true);
    seen.add(at);
    await page.keyboard.press("Tab");
  }
  seen.delete(-1);
  assert.equal(seen.size, wanted);
  await close(page);
});

test("names that are markup stay text", async () => {
  await lead("markup/on");
  const still = await open({ javaScriptEnabled: false });
  const name = '<img src=x onerror="window.broken=1">';
  assert.equal(await still.getByText(name).first().innerText(), name);
  await close(still);
  const page = await open();
  await live(page);
  await page.waitForFunction(() => document.querySelectorAll("#upstreams tbody tr").length === 7);
  await page.evaluate(() => document.querySelector("#upstreams tbody").replaceChildren());
  await page.waitForFunction(() => document.querySelectorAll("#upstreams tbody tr").length === 7);
  await page.waitForResponse((answer) => answer.url() === `${BASE}/`);
  assert.equal(await page.getByText(name).first().innerText(), name);
  assert.equal(await page.evaluate(() => document.querySelector("main img, main script") ?? window.broken ?? null), null);
  await close(page);
});

test("with a token a browser logs in, and out", async () => {
  await lead("token/on");
  const page = await open();
  assert.equal(page.url(), `${BASE}/login`);
  await accessible(page);
  await page.getByLabel("Token").fill("not-the-token-at-all");
  await page.getByRole("button", { name: "Log in" }).click();
  assert.match(await page.getByRole("alert").innerText(), /This is not the token/);
  await page.getByLabel("Token").fill("a-token-for-the-test");
  await page.getByRole("button", { name: "Log in" }).click();
  await live(page);
  const [session] = (await page.context().cookies()).filter(({ name }) => name === "keepwarm_session");
  assert.deepEqual([session.httpOnly, session.sameSite, session.path], [true, "Strict", "/"]);
  await page.getByRole("button", { name: "Log out" }).click();
  await page.waitForURL(`${BASE}/login`);
  await page.goto(`${BASE}/pools/dns`);
  assert.equal(page.url(), `${BASE}/login`);
  await page.context().close();
});

test("a session that ends says so on the page", async () => {
  await lead("token/on");
  const page = await open();
  await page.getByLabel("Token").fill("a-token-for-the-test");
  await page.getByRole("button", { name: "Log in" }).click();
  await live(page);
  await lead("token/off");
  await lead("token/on");
  await page.waitForSelector('#live[data-live="out"]', { timeout: 30000 });
  assert.equal(await page.getByRole("link", { name: "Log in again" }).getAttribute("href"), "/login");
  await page.context().close();
});

test("a restart of the daemon is survived, and the forms of the page work after it", async () => {
  const page = await open();
  await live(page);
  await page.evaluate(() => (window.same = true));
  await lead("daemon/stop");
  await page.waitForSelector('#live[data-live="lost"]');
  assert.match(await page.locator("#live").innerText(), /connection lost since \d\d:\d\d:\d\d/);
  assert.equal(await page.evaluate(() => document.body.classList.contains("stale")), true);
  await accessible(page);
  await lead("daemon/start");
  const fresh = page.waitForResponse((answer) => answer.url() === `${BASE}/` && answer.status() === 200, { timeout: 60000 });
  await page.waitForSelector('#live[data-live="live"]', { timeout: 60000 });
  await fresh;
  assert.equal(await page.evaluate(() => document.body.classList.contains("stale") || !window.same), false);
  const before = (await calls()).length;
  await page.getByRole("button", { name: "Reload the config" }).click();
  await page.waitForSelector(".outcome:not(.failed)");
  assert.deepEqual((await calls()).slice(before), ["reload"]);
  await close(page);
});

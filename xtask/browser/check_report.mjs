// Opens pages of `chopi report` in Chromium as a person would, and checks what the tests of the program cannot:
// that nothing is asked of the network and nothing is said on the console, that the page fits its window, and that
// sorting, folding, filtering and the theme work from the keyboard.
//
// node check_report.mjs PLAYWRIGHT_CORE CHROMIUM SCREENSHOTS PAGE...

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [playwright, executablePath, screenshots, ...files] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--font-render-hinting=none"] });
let passed = 0;

/** Opens a page in a window of its own, which records all that must not happen. */
async function open(file, width, colorScheme) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  const wrong = [];
  const url = pathToFileURL(file).href;
  page.on("request", (request) => { if (request.url() !== url) wrong.push(`request: ${request.url()}`); });
  page.on("console", (message) => wrong.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => wrong.push(`error: ${error}`));
  await page.goto(url);
  return { page, wrong, close: () => context.close() };
}

/** One check, which opens the page anew. */
async function check(file, what, width, colorScheme, body) {
  const { page, wrong, close } = await open(file, width, colorScheme);
  await body(page);
  assert.deepEqual(wrong, [], what);
  await close();
  passed += 1;
}

const column = (page, index) => page.$$eval("#tensors tbody tr", (rows, index) =>
  rows.map((row) => ({ key: row.cells[index].dataset.key, text: row.cells[index].textContent })), index);

async function sideways(page) {
  const [scroll, inner] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(scroll <= inner, `the page is ${scroll} pixels wide in a window of ${inner}`);
  const cut = await page.$$eval(".panel, details[open], svg, table", (boxes) => boxes
    .filter((box) => box.checkVisibility() && box.getBoundingClientRect().right > innerWidth + 1)
    .map((box) => `${box.tagName} ${box.id} ${box.className}`));
  assert.deepEqual(cut, []);
}

for (const [index, file] of files.entries()) {
  for (const width of [1024, 1280, 1600]) {
    for (const theme of ["light", "dark"]) {
      await check(file, `width ${width}, ${theme}`, width, theme, async (page) => {
        await sideways(page);
        await page.evaluate(() => document.querySelectorAll("details").forEach((detail) => { detail.open = true; }));
        await sideways(page);
        await page.evaluate(() => document.querySelectorAll("details").forEach((detail) => { detail.open = false; }));
        const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        const luminance = Math.max(...background.match(/\d+/g).map(Number));
        assert.equal(luminance < 128, theme === "dark", background);
        const name = `report-${["one", "two"][index]}-${theme}-${width}.png`;
        if (width !== 1280) await page.screenshot({ path: join(screenshots, name) });
      });
    }
  }

  await check(file, "a narrow window scrolls the table alone, with the names in sight", 600, "light", async (page) => {
    const names = "#tensors tbody td";
    await page.$eval(".scroll", (box) => { box.scrollLeft = 400; });
    const [scroll, inner] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(scroll <= inner, `${scroll} > ${inner}`);
    assert.ok((await (await page.$(names)).boundingBox()).x >= 0);
  });

  await check(file, "the columns sort by click and by key, numbers as numbers", 1280, "light", async (page) => {
    const heads = await page.$$("#tensors thead th");
    for (const [at, head] of heads.entries()) {
      const button = await head.$("button");
      await button.click();
      assert.equal(await head.getAttribute("aria-sort"), "ascending");
      const ascending = await column(page, at);
      await button.focus();
      await page.keyboard.press("Enter");
      assert.equal(await head.getAttribute("aria-sort"), "descending");
      const descending = await column(page, at);
      assert.equal((await page.$$("#tensors th[aria-sort]")).length, 1);
      if (ascending[0].key === undefined) continue;
      const numbers = ascending.map((cell) => parseFloat(cell.key)).filter((x) => !isNaN(x));
      assert.deepEqual(numbers, numbers.toSorted((a, b) => (a === b ? 0 : a > b ? 1 : -1)));
      const back = descending.map((cell) => parseFloat(cell.key)).filter((x) => !isNaN(x));
      assert.deepEqual(back, numbers.toReversed());
    }
  });

  await check(file, "copied tensors are folded away, and open by key", 1280, "light", async (page) => {
    const copied = await page.$("#copied");
    assert.ok(copied, "the model has tensors that are copied");
    assert.equal(await copied.getAttribute("open"), null);
    assert.ok(!(await (await copied.$("table")).isVisible()));
    await (await copied.$("summary")).focus();
    await page.keyboard.press("Enter");
    assert.ok(await (await copied.$("table")).isVisible());
  });

  await check(file, "a tensor's name opens its detail, and focus follows", 1280, "light", async (page) => {
    const link = await page.$("#tensors tbody tr:nth-child(2) a");
    const target = (await link.getAttribute("href")).slice(1);
    await link.focus();
    await page.keyboard.press("Enter");
    await page.waitForFunction((id) => document.getElementById(id).open, target);
    const focused = await page.evaluate(() => document.activeElement.parentElement.id);
    assert.equal(focused, target);
    const box = await (await page.$(`#${target}`)).boundingBox();
    assert.ok(box.y >= 0, `${box.y}`);
    assert.ok(box.y < 900, `${box.y}`);
    await page.keyboard.press("Enter");
    assert.ok(!(await page.$eval(`#${target}`, (detail) => detail.open)));
  });

  await check(file, "the filter is reached by / and keeps the rows that it names", 1280, "light", async (page) => {
    const all = (await page.$$("#tensors tbody tr")).length;
    const name = (await column(page, 0))[0].text;
    await page.keyboard.press("/");
    await page.keyboard.type(name.toUpperCase());
    const shown = await page.$$eval("#tensors tbody tr", (rows) => rows.filter((row) => row.checkVisibility()).length);
    assert.ok(shown >= 1);
    assert.ok(shown < all);
    assert.equal(await page.textContent("#shown"), `${shown} of ${all}`);
  });

  await check(file, "the theme is changed by key", 1280, "light", async (page) => {
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const before = await background();
    await page.focus("#theme");
    await page.keyboard.press("Space");
    assert.notEqual(await background(), before);
    assert.equal(await page.textContent("#theme"), "Light theme");
    await page.keyboard.press("Space");
    assert.equal(await background(), before);
  });

  await check(file, "all that can be done is reached by Tab", 1280, "light", async (page) => {
    const expected = await page.$$eval("button, input, #tensors a, summary, dd a", (nodes) => nodes.length);
    const seen = new Set();
    for (let i = 0; i < 3 * expected; i += 1) {
      await page.keyboard.press("Tab");
      const at = await page.evaluate(() => Array.from(document.querySelectorAll("button, input, #tensors a, summary, dd a"))
        .indexOf(document.activeElement));
      if (at >= 0) seen.add(at);
    }
    assert.equal(seen.size, expected);
  });

  await check(file, "on paper the page is light, and has no controls", 1280, "dark", async (page) => {
    await page.emulateMedia({ media: "print", colorScheme: "dark" });
    assert.ok(!(await page.isVisible("#theme")));
    assert.ok(!(await page.isVisible("#filter")));
    const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.ok(Math.min(...background.match(/\d+/g).map(Number)) > 200, background);
    assert.ok((await page.pdf({ format: "A4" })).length > 10_000);
  });
}
await browser.close();
console.log(`${passed} passed, 0 failed`);

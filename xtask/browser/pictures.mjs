// Takes pictures: of a page of the documentation, and of what a program printed on terminals.
//
// node pictures.mjs PLAYWRIGHT_CORE CHROMIUM PAGE PICTURE [COLUMNS OUTPUT PICTURE]...
//
// OUTPUT is a file of what the terminal got, with its escape sequences for colours.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [playwright, executablePath, front, frontPicture, ...terminals] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--font-render-hinting=none"] });

const page = await browser.newPage({ viewport: { width: 1280, height: 1600 } });
await page.goto(pathToFileURL(front).href);
await page.screenshot({ path: frontPicture });

/** The colours of a terminal: plain ones, then bright ones. */
const COLORS = ["#666666", "#f47067", "#57ab5a", "#c69026", "#539bf5", "#b083f0", "#39c5cf", "#d0d7de"];
const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** What a terminal shows of some output, as HTML: lines, of which a later one overwrites the one before at a `\r`. */
function html(output) {
  const lines = output.replaceAll("\r\n", "\n").split("\n").map((line) => line.slice(line.lastIndexOf("\r") + 1));
  let style = {};
  return lines.map((line) => {
    let out = "";
    // Of the escape sequences, those that set colours are kept.
    for (const part of line.split(/(\x1b\[[0-9;?]*[A-Za-z])/)) {
      const set = /^\x1b\[([0-9;]*)m$/.exec(part);
      if (set) {
        for (const code of (set[1] || "0").split(";").map(Number)) {
          if (code === 0) style = {};
          if (code === 1) style.bold = true;
          if (code === 2) style.dim = true;
          if (code === 39) delete style.color;
          if (code === 22) { delete style.bold; delete style.dim; }
          if (code >= 30 && code < 38) style.color = COLORS[code - 30];
          if (code >= 90 && code < 98) style.color = COLORS[code - 90];
        }
      } else if (!part.startsWith("\x1b")) {
        const css = `${style.color ? `color:${style.color};` : ""}${style.bold ? "font-weight:bold;" : ""}${style.dim ? "opacity:.6;" : ""}`;
        out += css ? `<span style="${css}">${escaped(part)}</span>` : escaped(part);
      }
    }
    return out;
  }).join("\n");
}

for (let at = 0; at < terminals.length; at += 3) {
  const [columns, output, picture] = terminals.slice(at, at + 3);
  const body = html(readFileSync(output, "utf8").trimEnd());
  const page = await browser.newPage({ viewport: { width: 1600, height: 400 } });
  await page.setContent(`<body style="margin:0;background:#fff"><pre style="margin:0;display:inline-block;box-sizing:content-box;
    width:${columns}ch;padding:12px;white-space:pre-wrap;overflow-wrap:anywhere;background:#1c2128;color:#d0d7de;font:14px/1.35 'DejaVu Sans Mono',monospace">${body}</pre>`);
  await (await page.$("pre")).screenshot({ path: picture });
}
await browser.close();

#include "lib/base/page/page.h"

#include <fmt/core.h>

#include "lib/base/page/markup.h"
#include "lib/base/version.h"

namespace moelora::page {
namespace {

// Shades s1 to s9 are a sequence; kz (exactly zero), ka (above the scale), kx (not finite) and k0
// (nothing there) stand beside it; the others are kinds.
// All that a drawing needs, so that it can be taken out of the page with them.
constexpr std::string_view kColors = R"css(
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #fff; --card: #f7f8fa;
  --edge: #d9dee4; --line: #2458b3; --other: #b4540a; --good: #1a7f37; --warn: #9a6700; --bad: #c1271c;
  --s1: #e3edf8; --s2: #c8dcf1; --s3: #a3c6e8; --s4: #7badde; --s5: #5592cf; --s6: #3477bb; --s7: #1f5d9e;
  --s8: #0f437c; --s9: #062a56; --zero: #d5efdb; --above: #e8590c; --broken: #c2185b; --none: #eceff2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #9aa4b2; --paper: #14171b; --card: #1b1f25; --edge: #343b45; --line: #7fb0ff;
    --other: #ffa657; --good: #57c774; --warn: #e3b341; --bad: #ff8a80; --s1: #15283d; --s2: #18395a; --s3: #1c4a77;
    --s4: #236094; --s5: #3179b3; --s6: #4c94cb; --s7: #78b1de; --s8: #a9ceec; --s9: #e0eefb; --zero: #1d4a2b;
    --above: #ff922b; --broken: #f06595; --none: #20252c; } }
.s1 { fill: var(--s1); } .s2 { fill: var(--s2); } .s3 { fill: var(--s3); } .s4 { fill: var(--s4); }
.s5 { fill: var(--s5); } .s6 { fill: var(--s6); } .s7 { fill: var(--s7); } .s8 { fill: var(--s8); }
.s9 { fill: var(--s9); } .kz { fill: var(--zero); } .ka { fill: var(--above); } .kx { fill: var(--broken); }
.k0 { fill: var(--none); } .gap { fill: none; } .used { fill: var(--good); } .changed { fill: var(--warn); } .lost { fill: var(--bad); }
.dot { fill: var(--line); fill-opacity: .6; } .worst { fill: none; stroke: var(--above); stroke-width: 1.4; }
.bar { fill: var(--line); fill-opacity: .75; } .other { fill: var(--other); fill-opacity: .85; }
.line, .line2, .line3 { fill: none; stroke: var(--line); stroke-width: 1.6; } .line2 { stroke: var(--other); }
.line3 { stroke: var(--bad); stroke-dasharray: 5 3; } .mark { fill: none; stroke: var(--soft); stroke-dasharray: 4 3; }
.grid { stroke: var(--edge); } svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg .ink { fill: var(--ink); }
)css";

constexpr std::string_view kStyle = R"css(
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 20px 16px 40px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 22px; margin: 0 0 2px; } h2 { font-size: 17px; margin: 28px 0 8px; } h3 { font-size: 15px; margin: 0; }
p, ul { margin: 4px 0; } ul { padding-left: 20px; } code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { margin: 4px 0; padding: 6px 8px; white-space: pre-wrap; background: var(--card); border-left: 3px solid var(--edge); }
.soft, figcaption, dd { color: var(--soft); } .good { color: var(--good); } .warn { color: var(--warn); }
.bad { color: var(--bad); } .verdict { font-size: 18px; font-weight: 600; margin: 12px 0 4px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 14px; margin: 10px 0; }
figure, .card { margin: 10px 0; padding: 10px 12px; background: var(--card); border: 1px solid var(--edge); border-radius: 6px; }
.charts figure { margin: 0; } figure > b { display: block; } figcaption { font-size: 13px; margin-top: 4px; }
.scroll { overflow-x: auto; } .fit > svg { display: block; width: 100%; height: auto; } .scroll svg { display: block; }
.key { display: flex; flex-wrap: wrap; gap: 2px 12px; padding: 0; margin: 6px 0 0; list-style: none; font-size: 13px; }
.key svg { width: 12px; height: 12px; margin-right: 4px; vertical-align: -1px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
td, th { padding: 3px 12px 3px 0; text-align: right; vertical-align: top; border-bottom: 1px solid var(--edge); }
td:first-child, th:first-child, .prose { text-align: left; } .prose { min-width: 12em; overflow-wrap: anywhere; }
td:first-child code { white-space: nowrap; } dt { font-weight: 600; } dd { margin: 0 0 6px; }
@media (max-width: 480px) { .fit text { font-size: 15px; } }
@media print { body { max-width: none; padding: 0; font-size: 11px; } figure, .card, tr { break-inside: avoid; }
  .scroll { overflow: visible; } .scroll svg { max-width: 100%; height: auto; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
)css";

std::string origin_part(const PageOrigin& origin) {
  std::string out = fmt::format("<p class=\"soft\">moelora {}", version());
  if (!origin.date.empty()) out += ", " + text(origin.date);
  out += "</p>\n";
  if (!origin.command.empty()) out += element("pre", "", lines(origin.command)) + "\n";
  return out;
}

}  // namespace

std::string whole_page(std::string_view title, const PageOrigin& origin, std::string_view markup) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{0}</title>\n<style>{1}{2}</style>\n</head>\n<body>\n<h1>{0}</h1>\n{3}{4}</body>\n"
      "</html>\n",
      text(title), kColors, kStyle, origin_part(origin), markup);
}

}  // namespace moelora::page

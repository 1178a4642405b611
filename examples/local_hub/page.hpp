// SPDX-License-Identifier: MIT
//
// The page's files, inside the program: it needs nothing beside it and no build step but the
// compiler. Each file in page/ is what its name says but for its first and last line, which make a
// raw string literal of it, so that a plain #include is enough. No generator has to run, a copied
// folder compiles with one line of g++, and an editor shows the files as what they are. A compiler
// may stop at 16 KiB of one literal, so a file that gets longer is split.

#pragma once

#include <array>
#include <string_view>

namespace local_hub::page {

struct file {
  std::string_view path;
  const char* type;
  std::string_view text;
};

inline constexpr std::string_view index_html =
#include "page/index.html"
    ;
inline constexpr std::string_view style_css =
#include "page/style.css"
    ;
inline constexpr std::string_view icon_svg =
#include "page/icon.svg"
    ;
inline constexpr std::string_view main_js =
#include "page/main.js"
    ;
inline constexpr std::string_view hub_js =
#include "page/hub.js"
    ;
inline constexpr std::string_view dom_js =
#include "page/dom.js"
    ;
inline constexpr std::string_view words_js =
#include "page/words.js"
    ;
inline constexpr std::string_view table_js =
#include "page/table.js"
    ;
inline constexpr std::string_view dialogs_js =
#include "page/dialogs.js"
    ;
inline constexpr std::string_view feed_js =
#include "page/feed.js"
    ;
inline constexpr std::string_view shared_js =
#include "page/shared.js"
    ;
inline constexpr std::string_view live_js =
#include "page/live.js"
    ;
inline constexpr std::string_view list_js =
#include "page/list.js"
    ;
inline constexpr std::string_view new_model_js =
#include "page/new_model.js"
    ;
inline constexpr std::string_view model_js =
#include "page/model.js"
    ;
inline constexpr std::string_view train_it_js =
#include "page/train_it.js"
    ;
inline constexpr std::string_view keys_js =
#include "page/keys.js"
    ;
inline constexpr std::string_view new_keys_js =
#include "page/new_keys.js"
    ;
inline constexpr std::string_view metrics_js =
#include "page/metrics.js"
    ;
inline constexpr std::string_view chart_js =
#include "page/chart.js"
    ;

inline constexpr const char* script = "text/javascript; charset=utf-8";

inline constexpr std::array<file, 20> files = {{
    {"/", "text/html; charset=utf-8", index_html},
    {"/page/style.css", "text/css; charset=utf-8", style_css},
    {"/page/icon.svg", "image/svg+xml", icon_svg},
    {"/page/main.js", script, main_js},
    {"/page/hub.js", script, hub_js},
    {"/page/dom.js", script, dom_js},
    {"/page/words.js", script, words_js},
    {"/page/table.js", script, table_js},
    {"/page/dialogs.js", script, dialogs_js},
    {"/page/feed.js", script, feed_js},
    {"/page/shared.js", script, shared_js},
    {"/page/live.js", script, live_js},
    {"/page/list.js", script, list_js},
    {"/page/new_model.js", script, new_model_js},
    {"/page/model.js", script, model_js},
    {"/page/train_it.js", script, train_it_js},
    {"/page/keys.js", script, keys_js},
    {"/page/new_keys.js", script, new_keys_js},
    {"/page/metrics.js", script, metrics_js},
    {"/page/chart.js", script, chart_js},
}};

}  // namespace local_hub::page

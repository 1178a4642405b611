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
inline constexpr std::string_view address_js =
#include "page/address.js"
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
inline constexpr std::string_view list_item_js =
#include "page/list_item.js"
    ;
inline constexpr std::string_view leftovers_js =
#include "page/leftovers.js"
    ;
inline constexpr std::string_view new_model_js =
#include "page/new_model.js"
    ;
inline constexpr std::string_view model_js =
#include "page/model.js"
    ;
inline constexpr std::string_view model_dialogs_js =
#include "page/model_dialogs.js"
    ;
inline constexpr std::string_view train_it_js =
#include "page/train_it.js"
    ;
inline constexpr std::string_view beats_js =
#include "page/beats.js"
    ;
inline constexpr std::string_view console_js =
#include "page/console.js"
    ;
inline constexpr std::string_view system_js =
#include "page/system.js"
    ;
inline constexpr std::string_view results_js =
#include "page/results.js"
    ;
inline constexpr std::string_view matrix_js =
#include "page/matrix.js"
    ;
inline constexpr std::string_view keys_js =
#include "page/keys.js"
    ;
inline constexpr std::string_view new_keys_js =
#include "page/new_keys.js"
    ;
inline constexpr std::string_view compare_js =
#include "page/compare.js"
    ;
inline constexpr std::string_view metrics_js =
#include "page/metrics.js"
    ;
inline constexpr std::string_view values_js =
#include "page/values.js"
    ;
inline constexpr std::string_view gallery_js =
#include "page/gallery.js"
    ;
inline constexpr std::string_view choices_js =
#include "page/choices.js"
    ;
inline constexpr std::string_view board_js =
#include "page/board.js"
    ;
inline constexpr std::string_view chart_js =
#include "page/chart.js"
    ;
inline constexpr std::string_view lines_js =
#include "page/lines.js"
    ;
inline constexpr std::string_view scale_js =
#include "page/scale.js"
    ;
inline constexpr std::string_view legend_js =
#include "page/legend.js"
    ;
inline constexpr std::string_view save_js =
#include "page/save.js"
    ;

inline constexpr const char* script = "text/javascript; charset=utf-8";

inline constexpr std::array<file, 38> files = {{
    {"/", "text/html; charset=utf-8", index_html},
    {"/page/style.css", "text/css; charset=utf-8", style_css},
    {"/page/icon.svg", "image/svg+xml", icon_svg},
    {"/page/main.js", script, main_js},
    {"/page/hub.js", script, hub_js},
    {"/page/address.js", script, address_js},
    {"/page/dom.js", script, dom_js},
    {"/page/words.js", script, words_js},
    {"/page/table.js", script, table_js},
    {"/page/dialogs.js", script, dialogs_js},
    {"/page/feed.js", script, feed_js},
    {"/page/shared.js", script, shared_js},
    {"/page/live.js", script, live_js},
    {"/page/list.js", script, list_js},
    {"/page/list_item.js", script, list_item_js},
    {"/page/leftovers.js", script, leftovers_js},
    {"/page/new_model.js", script, new_model_js},
    {"/page/model.js", script, model_js},
    {"/page/model_dialogs.js", script, model_dialogs_js},
    {"/page/train_it.js", script, train_it_js},
    {"/page/beats.js", script, beats_js},
    {"/page/console.js", script, console_js},
    {"/page/system.js", script, system_js},
    {"/page/results.js", script, results_js},
    {"/page/matrix.js", script, matrix_js},
    {"/page/keys.js", script, keys_js},
    {"/page/new_keys.js", script, new_keys_js},
    {"/page/compare.js", script, compare_js},
    {"/page/metrics.js", script, metrics_js},
    {"/page/values.js", script, values_js},
    {"/page/gallery.js", script, gallery_js},
    {"/page/choices.js", script, choices_js},
    {"/page/board.js", script, board_js},
    {"/page/chart.js", script, chart_js},
    {"/page/lines.js", script, lines_js},
    {"/page/scale.js", script, scale_js},
    {"/page/legend.js", script, legend_js},
    {"/page/save.js", script, save_js},
}};

}  // namespace local_hub::page

// SPDX-License-Identifier: MIT
//
// HTTP/1.1 messages as text (RFC 9110, RFC 9112), without sockets, threads or a clock: the head of a
// request, its body, the parts of a form, and the head of a reply.
//
// Everything here comes from somebody unknown before a key is asked for. So each thing has a bound,
// what is ambiguous is refused (two lengths, a length beside chunks, a folded or a garbled line), and
// nothing recurses.

#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

namespace local_hub::http {

inline constexpr std::size_t request_line_bytes_max = 8192;
inline constexpr std::size_t head_bytes_max = std::size_t{16} * 1024;
inline constexpr std::size_t fields_max = 100;
inline constexpr std::size_t chunk_line_bytes_max = 256;
inline constexpr std::size_t trailer_bytes_max = 4096;
inline constexpr std::size_t part_head_bytes_max = 4096;

// ---- text ---------------------------------------------------------------------------------------

inline char lowered(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

inline std::string lowered(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = lowered(c);
  return out;
}

inline std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// The whole text as a number; nothing where it is none, or too large for one.
inline std::optional<std::uint64_t> number(std::string_view text, int base = 10) {
  std::uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, problem] = std::from_chars(text.data(), end, value, base);
  if (problem != std::errc() || stop != end) return std::nullopt;
  return value;
}

// What a method or a field's name is made of.
inline bool is_token(std::string_view text) {
  constexpr std::string_view others = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    const char low = lowered(c);
    return (low >= 'a' && low <= 'z') || (c >= '0' && c <= '9') || others.find(c) != others.npos;
  });
}

inline bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && c != '\t') || byte == 0x7F;
  });
}

// ---- the head of a request ----------------------------------------------------------------------

struct request {
  std::string method = {};
  std::string target = {};  // as it came, query included
  bool is_1_1 = true;       // and not of HTTP/1.0
  bool keeps_connection = true;
  bool expects_continue = false;
  std::uint64_t content_length = 0;
  bool chunked = false;
  std::string remote_address = {};
  // How its client reaches this server: scheme, host and path, without a slash at its end; "" where
  // that is not known. What handles the request fills it in.
  std::string root = {};
  std::vector<std::pair<std::string, std::string>> fields = {};  // names in lower case

  // The value of the first such field, "" where there is none. The name is in lower case.
  std::string field(std::string_view name) const {
    for (const auto& [each, value] : fields)
      if (each == name) return value;
    return "";
  }
  bool reads_only() const { return method == "GET" || method == "HEAD"; }

  std::string_view path() const { return std::string_view(target).substr(0, target.find('?')); }

  // Of the query, as it came; "" where there is none.
  std::string parameter(std::string_view name) const {
    const std::string query = '&' + target.substr(std::min(path().size() + 1, target.size()));
    const std::string lead = '&' + std::string(name) + '=';
    const std::size_t at = query.find(lead);
    if (at == query.npos) return "";
    const std::size_t begin = at + lead.size();
    return query.substr(begin, query.find('&', begin) - begin);
  }
};

// What became of the bytes so far: a request and how long its head was, or the status of a refusal.
struct head {
  http::request request;
  std::size_t size_bytes;
};
struct incomplete {};
using parsed_head = std::variant<incomplete, head, int>;

class head_parser {
 public:
  // `bytes` is everything since the last request; what was looked at before is not searched again,
  // however slowly they come.
  parsed_head parse(std::string_view bytes) {
    if (bytes.size() > request_line_bytes_max &&
        bytes.substr(0, request_line_bytes_max).find('\n') == bytes.npos)
      return 414;
    const std::size_t from = seen_ < 3 ? 0 : seen_ - 3;
    const std::size_t end = bytes.substr(0, head_bytes_max).find("\r\n\r\n", from);
    seen_ = bytes.size();
    if (end == bytes.npos) {
      if (bytes.size() < head_bytes_max) return incomplete{};
      return 431;
    }
    seen_ = 0;
    http::request out;
    if (const int refused = read(bytes.substr(0, end + 2), out)) return refused;
    return head{std::move(out), end + 4};
  }

 private:
  // The status of a refusal, 0 for none.
  static int read(std::string_view lines, request& out) {
    const std::size_t first_end = lines.find("\r\n");
    if (const int refused = read_request_line(lines.substr(0, first_end), out)) return refused;
    lines.remove_prefix(first_end + 2);
    while (!lines.empty()) {
      const std::size_t end = lines.find("\r\n");
      const std::string_view line = lines.substr(0, end);
      const std::size_t colon = line.find(':');
      if (colon == line.npos || !is_token(line.substr(0, colon)) || has_control(line)) return 400;
      if (out.fields.size() == fields_max) return 431;
      out.fields.emplace_back(lowered(line.substr(0, colon)), trimmed(line.substr(colon + 1)));
      lines.remove_prefix(end + 2);
    }
    return read_framing(out);
  }

  static int read_request_line(std::string_view line, request& out) {
    const std::size_t first = line.find(' ');
    const std::size_t last = line.rfind(' ');
    if (first == line.npos || first == last) return 400;
    const std::string_view target = line.substr(first + 1, last - first - 1);
    const std::string_view version = line.substr(last + 1);
    if (!is_token(line.substr(0, first)) || target.find(' ') != target.npos || has_control(line))
      return 400;
    if (version != "HTTP/1.1" && version != "HTTP/1.0")
      return version.starts_with("HTTP/") ? 505 : 400;
    out.method = line.substr(0, first);
    out.is_1_1 = out.keeps_connection = version == "HTTP/1.1";
    return read_target(target, out);
  }

  // A path, or, as a client that takes this for a proxy sends it, a whole URL.
  static int read_target(std::string_view target, request& out) {
    for (const std::string_view scheme : {"http://", "https://"})
      if (lowered(target.substr(0, scheme.size())) == scheme) {
        const std::size_t path = target.find('/', scheme.size());
        target = path == target.npos ? "/" : target.substr(path);
      }
    if (!target.starts_with('/') && target != "*") return 400;
    out.target = target;
    return 0;
  }

  static int read_framing(request& out) {
    std::optional<std::string> length;
    std::size_t hosts = 0;
    for (const auto& [name, value] : out.fields) {
      if (name == "host") ++hosts;
      if (name == "content-length") {
        if (length && *length != value) return 400;
        length = value;
      }
      if (name == "transfer-encoding") {
        if (out.chunked || lowered(value) != "chunked") return 501;
        out.chunked = true;
      }
      if (name == "content-encoding" && lowered(value) != "identity") return 415;
      if (name == "expect") out.expects_continue = lowered(value) == "100-continue";
      if (name == "connection") read_connection(lowered(value), out);
    }
    if (hosts > 1 || (hosts == 0 && out.is_1_1) || (length && out.chunked)) return 400;
    if (length) {
      const auto bytes = number(*length);
      if (!bytes) return 400;
      out.content_length = *bytes;
    }
    return 0;
  }

  static void read_connection(const std::string& value, request& out) {
    if (value.find("close") != value.npos)
      out.keeps_connection = false;
    else if (value.find("keep-alive") != value.npos)
      out.keeps_connection = true;
  }

  std::size_t seen_ = 0;
};

// ---- the body of a request ----------------------------------------------------------------------

// Finds the content in the bytes of a body.
class body_decoder {
 public:
  // With the framing of this head.
  explicit body_decoder(const request& of)
      : state_(of.chunked ? state::size_line : state::content),
        chunked_(of.chunked),
        left_(of.content_length) {
    if (!chunked_ && left_ == 0) state_ = state::done;
  }

  bool done() const { return state_ == state::done; }
  bool broken() const { return state_ == state::broken; }

  // Takes what belongs to the body off the front of `bytes` and hands its content, piece by piece,
  // to add(), which returns false where it wants no more; returns whether it did not.
  template <class Add>
  bool take(std::string_view& bytes, Add add) {
    while (!bytes.empty() && !done() && !broken()) {
      if (state_ != state::content) {
        take_line(bytes);
        continue;
      }
      const std::string_view piece =
          bytes.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(left_, bytes.size())));
      bytes.remove_prefix(piece.size());
      left_ -= piece.size();
      if (left_ == 0) state_ = chunked_ ? state::content_end : state::done;
      if (!add(piece)) return false;
    }
    return true;
  }

 private:
  enum class state { size_line, content, content_end, trailer, done, broken };

  // Lines are short, and most come whole.
  void take_line(std::string_view& bytes) {
    const std::size_t end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, end == bytes.npos ? end : end + 1);
    const std::size_t max = state_ == state::trailer ? trailer_bytes_max : chunk_line_bytes_max;
    bytes.remove_prefix(piece.size());
    line_ += piece.substr(0, max + 1);
    if (line_.size() > max) state_ = state::broken;
    if (end == bytes.npos || broken()) return;
    if (!line_.ends_with("\r\n")) {
      state_ = state::broken;
      return;
    }
    line_.resize(line_.size() - 2);
    next(std::exchange(line_, {}));
  }

  void next(const std::string& line) {
    if (state_ == state::content_end) {
      state_ = line.empty() ? state::size_line : state::broken;
    } else if (state_ == state::trailer) {
      trailer_bytes_ += line.size() + 2;
      if (line.empty()) state_ = state::done;
      if (trailer_bytes_ > trailer_bytes_max) state_ = state::broken;
    } else {
      const auto size = number(trimmed(line.substr(0, line.find(';'))), 16);
      left_ = size.value_or(0);
      state_ = !size ? state::broken : left_ > 0 ? state::content : state::trailer;
    }
  }

  state state_;
  bool chunked_;
  std::uint64_t left_;  // of the body, or of the chunk
  std::string line_;
  std::size_t trailer_bytes_ = 0;
};

// ---- forms --------------------------------------------------------------------------------------

struct part_head {
  std::string name;
  std::string file_name;  // "" where the part is no file
};

// The boundary of a multipart/form-data body; nothing where it is no such body.
inline std::optional<std::string> boundary_of(std::string_view content_type) {
  constexpr std::string_view mark = "boundary=";
  if (!lowered(content_type).starts_with("multipart/form-data")) return std::nullopt;
  const std::size_t at = lowered(content_type).find(mark);
  if (at == content_type.npos) return std::nullopt;
  std::string_view value = content_type.substr(at + mark.size());
  value = trimmed(value.substr(0, value.find(';')));
  if (value.size() > 1 && value.front() == '"' && value.back() == '"')
    value = value.substr(1, value.size() - 2);
  constexpr std::size_t bytes_max = 70;  // RFC 2046
  if (value.empty() || value.size() > bytes_max) return std::nullopt;
  return std::string(value);
}

// Takes a form apart as it comes (RFC 7578).
class form_reader {
 public:
  using begin_part = std::function<bool(const part_head&)>;
  using add_content = std::function<bool(std::string_view)>;

  // Both return false where the rest is not wanted.
  form_reader(const std::string& boundary, begin_part begin, add_content add)
      : delimiter_("\r\n--" + boundary), begin_(std::move(begin)), add_(std::move(add)) {}

  bool done() const { return state_ == state::end; }

  // False where it is no form, or not wanted.
  bool take(std::string_view bytes) {
    pending_ += bytes;
    while (step()) {
    }
    return state_ != state::broken;
  }

 private:
  enum class state { before, after_delimiter, head, content, end, broken };

  // Whether something was done, so that there may be more to do.
  bool step() {
    switch (state_) {
      case state::before:
      case state::content: return find_delimiter();
      case state::after_delimiter: return read_after_delimiter();
      case state::head: return read_head();
      case state::end: pending_.clear(); return false;
      case state::broken: return false;
    }
    return false;
  }

  bool go(state next, std::size_t used) {
    pending_.erase(0, used);
    state_ = next;
    return next != state::broken;
  }

  // A delimiter may be cut in two by where the bytes came from.
  bool find_delimiter() {
    const std::size_t at = pending_.find(delimiter_);
    const bool found = at != pending_.npos;
    const std::size_t held = delimiter_.size() - 1;
    const std::size_t count = found ? at : pending_.size() - std::min(pending_.size(), held);
    const std::string_view content = std::string_view(pending_).substr(0, count);
    if (state_ == state::content && !content.empty() && !add_(content)) return go(state::broken, 0);
    if (found) return go(state::after_delimiter, at + delimiter_.size());
    pending_.erase(0, count);
    return false;
  }

  bool read_after_delimiter() {
    if (pending_.size() < 2) return false;
    if (pending_.starts_with("\r\n")) return go(state::head, 2);
    return go(pending_.starts_with("--") ? state::end : state::broken, 2);
  }

  bool read_head() {
    const std::size_t end = pending_.find("\r\n\r\n");
    if (end == pending_.npos || end > part_head_bytes_max)
      return pending_.size() > part_head_bytes_max && go(state::broken, 0);
    const auto head = part_of(std::string_view(pending_).substr(0, end + 2));
    if (!head || !begin_(*head)) return go(state::broken, 0);
    return go(state::content, end + 4);
  }

  static std::optional<part_head> part_of(std::string_view lines) {
    constexpr std::string_view field = "content-disposition:";
    for (std::size_t end; (end = lines.find("\r\n")) != lines.npos; lines.remove_prefix(end + 2)) {
      const std::string_view line = lines.substr(0, end);
      if (!lowered(line).starts_with(field)) continue;
      const auto name = parameter(line, "name");
      if (!name) return std::nullopt;
      return part_head{*name, parameter(line, "filename").value_or("")};
    }
    return std::nullopt;
  }

  // ; NAME="VALUE"
  static std::optional<std::string> parameter(std::string_view line, std::string_view name) {
    const std::string lead = std::string(name) + "=\"";
    for (std::size_t at = 0; (at = line.find(lead, at)) != line.npos; at += lead.size()) {
      if (at == 0 || (line[at - 1] != ' ' && line[at - 1] != ';')) continue;
      std::string value;
      for (std::size_t i = at + lead.size(); i < line.size() && line[i] != '"'; ++i) {
        if (line[i] == '\\' && i + 1 < line.size()) ++i;
        value += line[i];
      }
      return value;
    }
    return std::nullopt;
  }

  std::string delimiter_;
  begin_part begin_;
  add_content add_;
  std::string pending_ = "\r\n";  // so that the first delimiter is one like the others
  state state_ = state::before;
};

// ---- ranges -------------------------------------------------------------------------------------

struct byte_range {
  std::uint64_t first;
  std::uint64_t count;  // 0 where the file has no such part
};

// What of a file is wanted: nothing for all of it, which is also meant by several ranges or by one
// that cannot be read.
inline std::optional<byte_range> range_of(std::string_view value, std::uint64_t size) {
  constexpr std::string_view unit = "bytes=";
  if (!value.starts_with(unit)) return std::nullopt;
  value.remove_prefix(unit.size());
  const std::size_t dash = value.find('-');
  if (dash == value.npos) return std::nullopt;
  const auto first = number(value.substr(0, dash));
  const auto last = number(value.substr(dash + 1));
  if ((!first && dash > 0) || (!last && dash + 1 < value.size())) return std::nullopt;
  if (!first && !last) return std::nullopt;
  if (!first) return byte_range{size - std::min(*last, size), std::min(*last, size)};
  if (last && *last < *first) return std::nullopt;
  if (*first >= size) return byte_range{0, 0};
  const std::uint64_t end = last && *last < size ? *last + 1 : size;
  return byte_range{*first, end - *first};
}

// ---- replies ------------------------------------------------------------------------------------

struct response {
  // Fills `piece` with what comes at `offset`, at most so many bytes; false where that cannot be
  // had, which ends the connection, so that nobody takes a part for the whole.
  using content_source =
      std::function<bool(std::uint64_t offset, std::size_t bytes_max, std::string& piece)>;

  int status = 200;
  std::vector<std::pair<std::string, std::string>> fields = {};
  std::string body = {};
  std::optional<std::uint64_t> source_bytes = {};  // where `source` has the body
  content_source source = {};
  bool seekable = false;  // whether `source` can begin anywhere, so that a range can be served
  std::string etag = {};  // which version of it this is

  void set(std::string name, std::string value) {
    fields.emplace_back(std::move(name), std::move(value));
  }
  void set_body(std::string type, std::string text) {
    set("Content-Type", std::move(type));
    body = std::move(text);
  }
  void set_source(std::string type, std::uint64_t bytes, content_source from, bool can_seek) {
    set("Content-Type", std::move(type));
    source_bytes = bytes;
    source = std::move(from);
    seekable = can_seek;
  }
};

inline std::string_view reason_of(int status) {
  switch (status) {
    case 100: return "Continue";
    case 200: return "OK";
    case 206: return "Partial Content";
    case 302: return "Found";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 416: return "Range Not Satisfiable";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    case 507: return "Insufficient Storage";
    default: return "-";
  }
}

// A line break in a value would begin a field of its own.
inline std::string head_of(const response& what, std::optional<std::uint64_t> body_bytes,
                           bool keeps_connection) {
  std::string out = "HTTP/1.1 " + std::to_string(what.status) + ' ' +
                    std::string(reason_of(what.status)) + "\r\n";
  for (const auto& [name, value] : what.fields)
    if (!has_control(value)) out += name + ": " + value + "\r\n";
  if (!what.etag.empty()) out += "ETag: " + what.etag + "\r\n";
  if (body_bytes) out += "Content-Length: " + std::to_string(*body_bytes) + "\r\n";
  out += keeps_connection ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return out;
}

}  // namespace local_hub::http

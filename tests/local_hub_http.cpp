// SPDX-License-Identifier: MIT
//
// HTTP as local_hub reads it, without a socket: what is a request and what is refused, however the
// bytes are cut.

#include "../examples/local_hub/http/message.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace local_hub_http_tests {

namespace {

namespace http = local_hub::http;

// A whole head is read, or refused with this status; 0 where more is needed.
int verdict(std::string_view bytes) {
  const http::parsed_head parsed = http::head_parser().parse(bytes);
  if (const int* refused = std::get_if<int>(&parsed)) return *refused;
  return std::holds_alternative<http::head>(parsed) ? 200 : 0;
}

http::request read(std::string_view bytes) {
  return std::get<http::head>(http::head_parser().parse(bytes)).request;
}

std::string with_fields(const std::string& fields) {
  return "POST /v1/models HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n";
}

TEST_CASE("the head of a request is read, however it comes", "[local_hub]") {
  const std::string text =
      "POST /v1/models/x?a=1&since=22 HTTP/1.1\r\nHost: a:1\r\nX-API-Key:  k \r\n"
      "Content-Length: 5\r\nConnection: Close\r\nExpect: 100-continue\r\n\r\nhello";
  http::head_parser parser;
  for (std::size_t count = 0; count < text.size() - 5; ++count)
    REQUIRE(std::holds_alternative<http::incomplete>(parser.parse(text.substr(0, count))));
  const auto found = std::get<http::head>(parser.parse(text));
  CHECK(found.size_bytes == text.size() - 5);
  CHECK(found.request.method == "POST");
  CHECK(found.request.path() == "/v1/models/x");
  CHECK(found.request.parameter("since") == "22");
  CHECK(found.request.parameter("a") == "1");
  CHECK(found.request.parameter("b").empty());
  CHECK(found.request.field("x-api-key") == "k");
  CHECK(found.request.content_length == 5);
  CHECK_FALSE(found.request.keeps_connection);
  CHECK(found.request.expects_continue);
  CHECK(read("GET http://a:1/b HTTP/1.1\r\nHost: a\r\n\r\n").target == "/b");
  CHECK_FALSE(read("GET / HTTP/1.0\r\n\r\n").keeps_connection);
}

TEST_CASE("a head that can be read in two ways is refused", "[local_hub]") {
  CHECK(verdict(with_fields("")) == 200);
  CHECK(verdict(with_fields("Content-Length: 1\r\nContent-Length: 1\r\n")) == 200);
  CHECK(verdict(with_fields("Content-Length: 1\r\nContent-Length: 2\r\n")) == 400);
  CHECK(verdict(with_fields("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n")) == 400);
  CHECK(verdict(with_fields("Transfer-Encoding: gzip, chunked\r\n")) == 501);
  CHECK(verdict(with_fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")) ==
        501);
  CHECK(verdict(with_fields("Content-Encoding: gzip\r\n")) == 415);
  for (const char* length : {"-1", "+1", "1 1", "0x10", "", "99999999999999999999"})
    CHECK(verdict(with_fields("Content-Length: " + std::string(length) + "\r\n")) == 400);
  CHECK(verdict(with_fields("Host: b\r\n")) == 400);
  CHECK(verdict("GET / HTTP/1.1\r\n\r\n") == 400);
  CHECK(verdict(with_fields("A: b\r\n folded\r\n")) == 400);
  CHECK(verdict(with_fields("A : b\r\n")) == 400);
  CHECK(verdict(with_fields("no colon\r\n")) == 400);
  CHECK(verdict(with_fields("A: b\nC: d\r\n")) == 400);
  CHECK(verdict(with_fields(std::string("A: \0\r\n", 6))) == 400);
  for (const char* line : {"GET /", "GET  / HTTP/1.1", "GET / / HTTP/1.1", "G{T / HTTP/1.1",
                           "GET x HTTP/1.1", "GET / SPDY/1.1", "", " / HTTP/1.1"})
    CHECK(verdict(std::string(line) + "\r\nHost: a\r\n\r\n") == 400);
  CHECK(verdict("GET / HTTP/2.0\r\nHost: a\r\n\r\n") == 505);
}

TEST_CASE("a head has a bound, whatever it is made of", "[local_hub]") {
  const std::string much(100'000, 'x');
  CHECK(verdict("GET /" + much) == 414);
  CHECK(verdict("GET /" + much + " HTTP/1.1\r\nHost: a\r\n\r\n") == 414);
  CHECK(verdict(with_fields("A: " + much + "\r\n")) == 431);
  CHECK(verdict(with_fields("A: " + much).substr(0, 20'000)) == 431);
  std::string fields;
  for (int i = 0; i < 200; ++i) fields += "A: b\r\n";
  CHECK(verdict(with_fields(fields)) == 431);
}

// ---- bodies -------------------------------------------------------------------------------------

struct decoded {
  std::string content;
  std::string rest;
  bool done;
  bool broken;
};

// In pieces of so many bytes.
decoded decode(const http::request& head, std::string_view bytes, std::size_t piece) {
  http::body_decoder body(head);
  decoded out{};
  while (!bytes.empty() && !body.done() && !body.broken()) {
    std::string_view some = bytes.substr(0, piece);
    const std::size_t given = some.size();
    body.take(some, [&](std::string_view content) {
      out.content += content;
      return true;
    });
    bytes.remove_prefix(given - some.size());
  }
  out.rest = bytes;
  out.done = body.done();
  out.broken = body.broken();
  return out;
}

TEST_CASE("a body ends where its head says, however it comes", "[local_hub]") {
  const std::string chunks = "5\r\nhello\r\n1;x=y\r\n \r\n05\r\nworld\r\n0\r\nA: b\r\n\r\nGET";
  const std::size_t piece =
      GENERATE(std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{7}, std::size_t{1000});
  const decoded chunked =
      decode(read(with_fields("Transfer-Encoding: chunked\r\n")), chunks, piece);
  CHECK(chunked.content == "hello world");
  CHECK(chunked.done);
  CHECK(chunked.rest == "GET");
  const decoded counted = decode(read(with_fields("Content-Length: 5\r\n")), "helloGET", piece);
  CHECK(counted.content == "hello");
  CHECK(counted.done);
  CHECK(counted.rest == "GET");
}

TEST_CASE("chunks that are none, and trailers without end, are garbled", "[local_hub]") {
  const http::request head = read(with_fields("Transfer-Encoding: chunked\r\n"));
  const std::string much(10'000, '1');
  for (const std::string& bytes :
       {std::string("x\r\n"), std::string("-2\r\n"), std::string("\r\n"), std::string("5\nhello"),
        std::string("5\r\nhelloX\r\n"), std::string("ffffffffffffffffff\r\n"), much,
        "1;" + much + "\r\n", "0\r\nA: " + much, "0\r\n" + std::string(10'000, '\n')}) {
    CAPTURE(bytes.substr(0, 30));
    CHECK(decode(head, bytes, 1000).broken);
  }
  std::string lines = "0\r\n";
  for (int i = 0; i < 1000; ++i) lines += "A: b\r\n";
  CHECK(decode(head, lines, 1000).broken);
}

// ---- forms --------------------------------------------------------------------------------------

struct part {
  std::string name;
  std::string file_name;
  std::string content;
};

std::optional<std::vector<part>> parts_of(std::string_view form, std::size_t piece) {
  std::vector<part> parts;
  http::form_reader reader(
      "edge",
      [&](const http::part_head& head) {
        parts.push_back({head.name, head.file_name, ""});
        return true;
      },
      [&](std::string_view content) {
        parts.back().content += content;
        return true;
      });
  for (; !form.empty(); form.remove_prefix(std::min(piece, form.size())))
    if (!reader.take(form.substr(0, piece))) return std::nullopt;
  if (!reader.done()) return std::nullopt;
  return parts;
}

const std::string lead = "--edge\r\nContent-Disposition: form-data; ";

TEST_CASE("a form is taken apart, however it comes", "[local_hub]") {
  const std::string almost = "\r\n--edg\r\n--\r\n\r\n--edg";
  const std::string form = lead + "name=\"epoch\"\r\n\r\n3\r\n" + lead +
                           "filename=\"a \\\"b\\\".pt\"; name=\"last.pt\"\r\nX: y\r\n\r\n" +
                           almost + "\r\n" + lead +
                           "name=\"empty\"\r\n\r\n\r\n--edge--\r\nepilogue";
  for (std::size_t piece = 1; piece < 90; ++piece) {
    CAPTURE(piece);
    const auto parts = parts_of(form, piece);
    REQUIRE(parts);
    REQUIRE(parts->size() == 3);
    CHECK((*parts)[0].name == "epoch");
    CHECK((*parts)[0].content == "3");
    CHECK((*parts)[1].name == "last.pt");
    CHECK((*parts)[1].file_name == "a \"b\".pt");
    CHECK((*parts)[1].content == almost);
    CHECK((*parts)[2].content.empty());
  }
}

TEST_CASE("what is no form is not taken for one", "[local_hub]") {
  for (const std::string& form :
       {std::string("nothing"), lead + "name=\"a\"\r\n\r\nno end",
        lead + "no name\r\n\r\n1\r\n--edge--", std::string("--edge\r\nX: y\r\n\r\n1\r\n--edge--"),
        std::string("--edgeX"), lead + "name=\"a\"; x=\"" + std::string(5000, 'x')}) {
    CAPTURE(form.substr(0, 80));
    CHECK_FALSE(parts_of(form, 1000));
  }
  CHECK(http::boundary_of("multipart/form-data; boundary=edge") == "edge");
  CHECK(http::boundary_of("Multipart/Form-Data; charset=x; boundary=\"a b\"") == "a b");
  CHECK_FALSE(http::boundary_of("application/json"));
  CHECK_FALSE(http::boundary_of("multipart/form-data"));
  CHECK_FALSE(http::boundary_of("multipart/form-data; boundary=" + std::string(71, 'x')));
}

// ---- ranges and replies -------------------------------------------------------------------------

TEST_CASE("a range is what RFC 9110 makes of it", "[local_hub]") {
  const auto is = [](const char* text, std::uint64_t first, std::uint64_t count) {
    const auto range = http::range_of(text, 100);
    return range && range->first == first && range->count == count;
  };
  CHECK(is("bytes=0-", 0, 100));
  CHECK(is("bytes=10-19", 10, 10));
  CHECK(is("bytes=90-1000", 90, 10));
  CHECK(is("bytes=-10", 90, 10));
  CHECK(is("bytes=-1000", 0, 100));
  CHECK(is("bytes=100-", 0, 0));
  for (const char* text : {"", "bytes=", "bytes=-", "bytes=5-4", "bytes=a-b", "bytes=0-1,3-4",
                           "lines=0-1", "bytes=99999999999999999999-"})
    CHECK_FALSE(http::range_of(text, 100));
}

TEST_CASE("no value makes a field of its own in a reply", "[local_hub]") {
  http::response reply;
  reply.set("X", "a\r\nSet-Cookie: b");
  CHECK(http::head_of(reply, 0, true) ==
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n");
}

}  // namespace

}  // namespace local_hub_http_tests

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <random>
#include <sstream>

#include "lib/base/utf8.h"
#include "lib/io/safetensors.h"
#include "tests/io/error_text.h"
#include "tests/io/golden_text.h"

using namespace moelora;
using namespace std::string_literals;
namespace fs = std::filesystem;

namespace {

const std::string kCrafted = MOELORA_TEST_DATA "/safetensors";

std::string fault(const std::string& header, uint64_t data_bytes) {
  return error_text([&] { parse_safetensors_header(header, 8 + header.size() + data_bytes, "f"); });
}

std::string advised(const std::string& header) {
  return error_advised([&] { parse_safetensors_header(header, 8 + header.size(), "f"); });
}

// {"t":{ENTRY}}
std::string tensor(const std::string& entry) { return "{\"t\":{" + entry + "}}"; }

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets;
}

const std::string kSound = entry("U8", "[4]", "[0,4]");

struct Case {
  const char* title;
  std::string header;
  uint64_t data_bytes;
};

std::string dims(size_t rank) {
  std::string out = "[1";
  for (size_t i = 1; i < rank; ++i) out += ",1";
  return out + "]";
}

std::vector<Case> grammar_cases() {
  const std::string in_entry = "{\"t\":{" + kSound;
  return {
      {"no header", "", 0},
      {"only blanks", " \n", 0},
      {"byte order mark", "\xEF\xBB\xBF{}", 0},
      {"two objects", "{}{}", 0},
      {"root is null", "null", 0},
      {"root is a number", "17", 0},
      {"cut in a key", "{\"t", 0},
      {"tensor is a boolean", "{\"t\":true}", 0},
      {"field twice: dtype", in_entry + ",\"dtype\":\"U8\"}}", 4},
      {"field twice: shape", in_entry + ",\"shape\":[4]}}", 4},
      {"field twice: data_offsets", in_entry + ",\"data_offsets\":[0,4]}}", 4},
      {"unknown field", in_entry + ",\"strides\":[1]}}", 4},
      {"no shape", tensor("\"dtype\":\"U8\",\"data_offsets\":[0,4]"), 4},
      {"no field at all", "{\"t\":{}}", 0},
      {"dtype as object", tensor("\"dtype\":{\"U8\":null},\"shape\":[4],\"data_offsets\":[0,4]"),
       4},
      {"dtype as array", tensor("\"dtype\":[\"U8\"],\"shape\":[4],\"data_offsets\":[0,4]"), 4},
      {"dtype with a blank", tensor(entry("U8 ", "[4]", "[0,4]")), 4},
      {"dtype empty", tensor(entry("", "[4]", "[0,4]")), 4},
      {"shape as number", tensor(entry("U8", "4", "[0,4]")), 4},
      {"shape nested", tensor(entry("U8", "[[4]]", "[0,4]")), 4},
      {"shape with a boolean", tensor(entry("U8", "[true]", "[0,4]")), 4},
      {"shape with a leading zero", tensor(entry("U8", "[04]", "[0,4]")), 4},
      {"shape above u64", tensor(entry("U8", "[18446744073709551616]", "[0,4]")), 4},
      {"rank 17", tensor(entry("U8", dims(17), "[0,1]")), 1},
      {"offsets as object", tensor(entry("U8", "[4]", "{\"begin\":0,\"end\":4}")), 4},
      {"offsets null", tensor(entry("U8", "[4]", "null")), 4},
      {"offsets empty", tensor(entry("U8", "[4]", "[]")), 4},
      {"offsets with one number", tensor(entry("U8", "[4]", "[4]")), 4},
      {"offsets with a fraction", tensor(entry("U8", "[4]", "[0.0,4]")), 4},
      {"metadata as array", "{\"__metadata__\":[\"a\"]}", 0},
      {"metadata as string", "{\"__metadata__\":\"pt\"}", 0},
      {"metadata with a number", "{\"__metadata__\":{\"format\":1}}", 0},
      {"metadata twice, once escaped",
       "{\"__metadata__\":{},\"\\u005f_metadata__\":{\"format\":\"pt\"}}", 0},
      {"metadata null twice, once escaped", "{\"__metadata__\":null,\"\\u005f_metadata__\":null}",
       0},
      {"metadata key twice, once escaped", "{\"__metadata__\":{\"a\":\"\",\"\\u0061\":\"\"}}", 0},
  };
}

// Eight tensors of 2^61-1 bytes: 8 + header + data is beyond 2^64.
std::string eight_huge_tensors() {
  const uint64_t size = (uint64_t{1} << 61) - 1;
  std::string out = "{";
  for (uint64_t i = 0; i < 8; ++i)
    out += fmt::format("\"{}\":{{\"dtype\":\"U8\",\"shape\":[{}],\"data_offsets\":[{},{}]}},", i,
                       size, i * size, (i + 1) * size);
  out.back() = '}';
  return out;
}

std::vector<Case> layout_cases() {
  const auto two = [](const std::string& first, const std::string& second) {
    return "{\"a\":{" + first + "},\"b\":{" + second + "}}";
  };
  return {
      {"offsets backwards", tensor(entry("U8", "[4]", "[4,0]")), 4},
      {"hole before", tensor(entry("U8", "[4]", "[1,5]")), 5},
      {"hole between", two(entry("U8", "[4]", "[0,4]"), entry("U8", "[4]", "[5,9]")), 9},
      {"overlap by one byte", two(entry("U8", "[4]", "[0,4]"), entry("U8", "[4]", "[3,7]")), 7},
      {"same bytes twice", two(entry("U8", "[4]", "[0,4]"), entry("U8", "[4]", "[0,4]")), 4},
      {"empty tensor inside another", two(entry("U8", "[4]", "[0,4]"), entry("U8", "[0]", "[2,2]")),
       4},
      {"name twice", "{\"a\":{" + kSound + "},\"a\":{" + entry("U8", "[1]", "[4,5]") + "}}", 5},
      {"name twice, once escaped, both empty",
       "{\"a\":{" + entry("U8", "[0]", "[0,0]") + "},\"\\u0061\":{" + entry("U8", "[0]", "[0,0]") +
           "}}",
       0},
      {"fewer bytes than the shape takes", tensor(entry("F32", "[2,2]", "[0,4]")), 4},
      {"more bytes than the shape takes", tensor(entry("F32", "[2,2]", "[0,20]")), 20},
      {"product wraps to 0", tensor(entry("U8", "[4294967296,4294967296]", "[0,0]")), 0},
      {"product wraps to what is there", tensor(entry("U8", "[9223372036854775810,2]", "[0,4]")),
       4},
      {"bits wrap", tensor(entry("F64", "[288230376151711744]", "[0,0]")), 0},
      {"bits wrap to what is there", tensor(entry("F64", "[288230376151711745]", "[0,8]")), 8},
      {"odd F4", tensor(entry("F4", "[1,3]", "[0,2]")), 2},
      {"scalar F4", tensor(entry("F4", "[]", "[0,1]")), 1},
      {"F6 that ends within a byte", tensor(entry("F6_E3M2", "[3]", "[0,3]")), 3},
      {"file cut by one byte", tensor(kSound), 3},
      {"one byte too many", tensor(kSound), 5},
      {"data without tensors", "{}", 1},
      {"sizes that fit alone but not together", eight_huge_tensors(), 0},
  };
}

std::vector<Case> name_cases() {
  const auto named = [](const std::string& name) { return "{\"" + name + "\":{}}"; };
  return {
      {"empty", named(""), 0},
      {"escape sequence of a terminal", named("\\u001b[2J"), 0},
      {"NUL", named("a\\u0000b"), 0},
      {"C1 control",
       named("\xC2\x9B"
             "31m"),
       0},
      {"text turned around",
       named("safe\xE2\x80\xAE"
             "evil"),
       0},
      {"newline", named("a\\nlora-validate: OK"), 0},
      {"other scripts stay", named("\xC3\xA9\xE5\xB1\x82\xF0\x9F\x98\x80"), 0},
      {"a thousand characters", named(std::string(1000, 'x')), 0},
      {"a path", named("../../etc/passwd"), 0},
  };
}

std::string report(const char* chapter, const std::vector<Case>& cases) {
  std::string out = fmt::format("=== {}\n", chapter);
  for (const Case& c : cases)
    out += fmt::format("\n{}\n  {} + {} bytes\n  {}\n", c.title, printable(c.header, 130),
                       c.data_bytes, fault(c.header, c.data_bytes));
  return out + "\n";
}

struct Verdict {
  std::string name, reference, ours;
};

std::vector<Verdict> verdicts() {
  std::istringstream in(read_text(kCrafted + "/verdicts.tsv"));
  std::vector<Verdict> out;
  std::string line;
  std::getline(in, line);
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    Verdict v;
    fields >> v.name >> v.reference >> v.ours;
    out.push_back(v);
  }
  return out;
}

std::string fault_of_file(const std::string& name) {
  return error_text([&] { open_safetensors(kCrafted + "/" + name + ".safetensors"); }, kCrafted);
}

}  // namespace

TEST_CASE("every crafted file gets its verdict, never a milder one than the reference gives") {
  const auto all = verdicts();
  REQUIRE(all.size() == 87);
  for (const Verdict& v : all) {
    CAPTURE(v.name);
    const bool accepted = fault_of_file(v.name).empty();
    // Its 127 brackets are a field "x" of a tensor: unknown fields are refused (18_unknown_field).
    const bool overlooked = v.name == "101_deep_127";
    // Recorded when a null __metadata__ was refused here; the reference takes it, and mlx writes
    // it.
    const bool from_mlx = v.name == "80_meta_null";
    CHECK(accepted == (from_mlx || (v.ours == "accept" && !overlooked)));
    if (accepted) CHECK(v.reference == "accept");
  }
}

TEST_CASE("every crafted file is refused in these words") {
  std::string actual;
  for (const Verdict& v : verdicts()) {
    const std::string text = fault_of_file(v.name);
    if (!text.empty()) actual += text + "\n";
  }
  CHECK(actual == golden_text("safetensors_files.golden", actual));
}

TEST_CASE("every fault of a header is refused in these words") {
  const std::string actual = report("grammar", grammar_cases()) + report("layout", layout_cases()) +
                             report("names", name_cases());
  CHECK(actual == golden_text("safetensors_headers.golden", actual));
  for (const auto& cases : {grammar_cases(), layout_cases(), name_cases()})
    for (const Case& c : cases) {
      CAPTURE(c.title);
      CHECK(fault(c.header, c.data_bytes) != "");
    }
}

TEST_CASE("sound headers of every shape are accepted") {
  CHECK(fault("{}", 0) == "");
  CHECK(fault(" {}\n\t\r ", 0) == "");
  CHECK(fault("{\"__metadata__\":{}}", 0) == "");
  CHECK(fault("{\"__metadata__\":null}", 0) == "");  // what mlx writes
  CHECK(fault("{\"__metadata__\":{\"\":\"\"}}", 0) == "");
  CHECK(fault(tensor(kSound), 4) == "");
  CHECK(fault(tensor(entry("U8", "[]", "[0,1]")), 1) == "");
  CHECK(fault(tensor(entry("U8", dims(16), "[0,1]")), 1) == "");
  CHECK(fault(tensor(entry("U8", "[0,18446744073709551615]", "[0,0]")), 0) == "");
  CHECK(fault(tensor(entry("F4", "[2,2]", "[0,2]")), 2) == "");
  CHECK(fault(tensor(entry("F6_E2M3", "[4]", "[0,3]")), 3) == "");
  CHECK(fault(tensor(entry("C64", "[1]", "[0,8]")), 8) == "");
}

TEST_CASE("entries come in file order, metadata and data offset with them") {
  const std::string header =
      "{\"z\":{" + entry("U8", "[0]", "[4,4]") + "},\"b\":{" + entry("F16", "[1,2]", "[0,4]") +
      "},\"__metadata__\":{\"format\":\"pt\",\"a\":\"\\u00e9\"},\"a\":{" +
      entry("I64", "[]", "[4,12]") + "},\"c\":{" + entry("U8", "[0]", "[4,4]") + "}}";
  const SafetensorsHeader h = parse_safetensors_header(header, 8 + header.size() + 12, "f");
  CHECK(h.data_begin == 8 + header.size());
  CHECK(h.has_metadata);
  CHECK(h.metadata == std::map<std::string, std::string>{{"format", "pt"}, {"a", "\u00e9"}});
  REQUIRE(h.tensors.size() == 4);
  CHECK(h.tensors[0].name == "b");
  CHECK(h.tensors[0].dtype == DType::F16);
  CHECK(h.tensors[0].shape == std::vector<uint64_t>{1, 2});
  CHECK(h.tensors[1].name == "c");
  CHECK(h.tensors[2].name == "z");
  CHECK(h.tensors[3].name == "a");
  CHECK(h.tensors[3].begin == 4);
  CHECK(h.tensors[3].end == 12);
}

namespace {

// The members of a header: sound tensors one after another, written with blanks and fields as
// `random` has it.
std::string random_members(std::mt19937& random, uint64_t& data_bytes) {
  const auto below = [&](unsigned n) { return static_cast<size_t>(random() % n); };
  const auto blank = [&] { return std::string(below(3) == 0 ? below(4) : 0, " \n\r\t"[below(4)]); };
  constexpr std::array<const char*, 5> kNames = {
      "a.lora_A.weight", "", "\u00e9", "a name",
      "model.layers.0.mlp.experts.7.up_proj.lora_B.weight"};
  std::string out;
  data_bytes = 0;
  for (size_t i = 0; i < 1 + below(6); ++i) {
    const uint64_t rows = below(4), columns = below(4), bytes = 2 * rows * columns;
    std::array<std::string, 3> fields = {
        "\"dtype\"" + blank() + ":" + blank() + (below(2) == 0 ? "\"F16\"" : "\"BF16\""),
        fmt::format("\"shape\":{}[{}{},{}{}]", blank(), blank(), rows, blank(), columns),
        fmt::format("\"data_offsets\":[{}{},{}{}]", data_bytes, blank(), data_bytes + bytes,
                    blank())};
    std::shuffle(fields.begin(), fields.end(), random);
    out += fmt::format("{}\"{}{}\"{}:{}{{{}}}", i == 0 ? "" : "," + blank(), kNames[below(5)], i,
                       blank(), blank(), fmt::join(fields, blank() + ","));
    data_bytes += bytes;
  }
  return out;
}

}  // namespace

TEST_CASE("a header without escapes is read as one with escapes, which is read by other code") {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    uint64_t data = 0;
    const std::string members = random_members(random, data), plain = "{" + members + "} ",
                      escaped = "{" + members + ",\"__metadata__\":{\"\\u0041\":\"\"}}";
    CAPTURE(plain);
    const auto a = parse_safetensors_header(plain, 8 + plain.size() + data, "f"),
               b = parse_safetensors_header(escaped, 8 + escaped.size() + data, "f");
    REQUIRE(a.tensors.size() == b.tensors.size());
    for (size_t i = 0; i < a.tensors.size(); ++i) {
      const TensorEntry &x = a.tensors[i], &y = b.tensors[i];
      CHECK(x.name == y.name);
      CHECK(x.dtype == y.dtype);
      CHECK(x.shape == y.shape);
      CHECK((x.begin == y.begin && x.end == y.end));
    }
    CHECK(fault(plain.substr(0, 1 + random() % members.size()), data) != "");
  }
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSlowHere = true;  // two minutes
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSlowHere = true;
#else
constexpr bool kSlowHere = false;
#endif
#else
constexpr bool kSlowHere = false;
#endif

TEST_CASE("metadata may have a hundred thousand keys and no more") {
  std::string header = "{\"__metadata__\":{";
  for (int i = 0; i < 100'000; ++i) header += fmt::format("\"{}\":\"\",", i);
  CHECK(fault(header.substr(0, header.size() - 1) + "}}", 0) == "");
  CHECK(advised(header + "\"x\":\"\"}}") ==
        "f: __metadata__: has more than 100000 keys -> Save the tensors again with less metadata.");
}

TEST_CASE("a header may name a quarter of a million tensors and no more" *
          doctest::skip(kSlowHere)) {
  std::string header = "{";
  for (size_t i = 0; i < kMaxHeaderTensors; ++i)
    header += fmt::format("\"{}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}},", i);
  header.back() = '}';
  CHECK(fault(header, 0) == "");
  header.back() = ',';
  CHECK(advised(header + "\"x\":{}}") ==
        "f: x: is tensor number 524289, no more than 524288 are read -> Save the tensors in "
        "several files, with an index.");
}

#include "lib/io/npy.h"

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <cstring>
#include <utility>

#include "tests/io/error_text.h"
#include "tests/io/npy_bytes.h"
#include "tests/io/torch_bytes.h"

using namespace moelora;
using namespace moelora::test;
using namespace std::string_literals;

namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

NpyArray parse(const std::string& file) { return parse_npy(bytes_of(file), "f.npy"); }

std::string refusal(const std::string& file) {
  return error_text([&] { parse(file); });
}

std::string refusal_of(const std::string& header) { return refusal(npy_bytes(header, "")); }

const std::string kUnsound = "f.npy: has a .npy header that is not sound: ";

// What is said of a header that ends with its last letter: numpy pads it.
std::string refusal_unpadded(const std::string& header) {
  return refusal("\x93NUMPY\1\0"s + little_endian(header.size(), 2) + header);
}

}  // namespace

TEST_CASE("an array is read as numpy writes it, in every version of the format") {
  const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  const std::string data = raw<float>({1, 2, 3, 4, 5, 6});
  for (const int major : {1, 2, 3}) {
    const NpyArray array = parse(npy_bytes(header, data, major));
    CHECK(array.header.dtype == DType::F32);
    CHECK(array.header.shape == Shape{2, 3});
    CHECK_FALSE(array.header.fortran_order);
    CHECK(array.header.data_begin % 64 == 0);
    REQUIRE(array.data.size() == data.size());
    CHECK(std::memcmp(array.data.data(), data.data(), data.size()) == 0);
  }
}

TEST_CASE("shapes of any length and both orders are read") {
  const auto shape_of = [](const std::string& shape, const std::string& data) {
    return parse(
               npy_bytes("{'descr': '<i8', 'fortran_order': True, 'shape': " + shape + ", }", data))
        .header;
  };
  CHECK(shape_of("()", raw<int64_t>({7})).shape.empty());
  CHECK(shape_of("(2,)", raw<int64_t>({7, 8})).shape == Shape{2});
  CHECK(shape_of("(0, 5)", "").shape == Shape{0, 5});
  CHECK(shape_of("(1, 1)", raw<int64_t>({7})).fortran_order);
  CHECK(shape_of("(1,1,1,1,1,1,1,1)", raw<int64_t>({7})).shape.size() == kMaxNpyRank);
}

TEST_CASE("a header is a dict of three keys and nothing else") {
  const auto check = [&](const std::string& header, const std::string& what) {
    CAPTURE(header);
    CHECK(refusal_of(header).starts_with(kUnsound + what));
  };
  check("", "'{' was expected");
  check("{'descr': '<f4', 'fortran_order': False}",
        "descr, fortran_order and shape must all be there");
  check("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}",
        "the key \"descr\" was not expected");
  check("{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}",
        "the key \"x\" was not expected");
  check("{'descr': '<f4', 'fortran_order': False, 'shape': ()} or 1",
        "there is text after the dict");
  check("{'descr': '<f4' 'fortran_order': False, 'shape': ()}", "a comma or } was expected");
  check("{'descr': '<f4', 'fortran_order': 0, 'shape': ()}",
        "fortran_order is neither True nor False");
  check("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "an extent of shape is not a number");
  check("{'descr': '<f4', 'fortran_order': False, 'shape': (1 2)}",
        "a comma or ) was expected in shape");
  check("{'descr': '<f4', 'fortran_order': False, 'shape': (1234567890123456,)}",
        "an extent of shape is too large");
  check("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}",
        "there are too many dims");
  check("{'descr': '<f4", "a quote is not closed");
  check("{descr: '<f4'}", "a quoted string was expected");
  check("{'descr': '<f4', 'fortran_order': False, 'shape': (a)}",
        "an extent of shape is not a number");
}

TEST_CASE("a header that ends in the midst of its dict is refused, wherever that is") {
  const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (12,)}";
  CHECK(refusal_unpadded(header) == "f.npy: holds 0 bytes of data, [12] of F32 need 48");
  for (size_t length = 0; length < header.size(); ++length) {
    CAPTURE(length);
    CHECK(refusal_unpadded(header.substr(0, length)).starts_with(kUnsound));
  }
  CHECK(refusal_unpadded(header.substr(0, header.find("2,"))) ==
        kUnsound + "a comma or ) was expected in shape");
}

TEST_CASE("Python quotes a string either way") {
  const NpyArray array = parse(
      npy_bytes(R"({"descr": '<i8', 'fortran_order': False, "shape": (1,), })", raw<int64_t>({7})));
  CHECK(array.header.dtype == DType::I64);
  CHECK(refusal_of(R"({"descr': '<i8', 'fortran_order': False, 'shape': ()})") ==
        kUnsound + "a quote is not closed");
}

TEST_CASE("dtypes that are not plain little-endian numbers are refused by what they are") {
  const auto of = [](const std::string& descr) {
    return refusal_of("{'descr': " + descr + ", 'fortran_order': False, 'shape': (1,)}");
  };
  CHECK(of("'|O'").find("an array of objects is a pickle, which is never loaded") !=
        std::string::npos);
  CHECK(of("'>f4'").find("big-endian numbers are not read") != std::string::npos);
  CHECK(of("[('a', '<f4')]").find("a structured dtype holds no plain numbers") !=
        std::string::npos);
  CHECK(of("'<U5'").find("the dtype \"<U5\" is not read") != std::string::npos);
}

TEST_CASE("bytes that are missing, too many or of another kind are refused") {
  const std::string sound =
      npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", raw<double>({1, 2}));
  CHECK_NOTHROW(parse(sound));
  CHECK(refusal(sound + "x").find("holds 17 bytes of data, [2] of F64 need 16") !=
        std::string::npos);
  CHECK(refusal(sound.substr(0, sound.size() - 1)).find("holds 15 bytes of data") !=
        std::string::npos);
  for (const size_t cut : {size_t{0}, size_t{5}, size_t{9}, size_t{40}})
    CHECK(refusal(sound.substr(0, cut)).find("ends inside its .npy header") != std::string::npos);
  CHECK(refusal("PK\3\4" + sound).find("does not begin as a .npy file does") != std::string::npos);
  const auto version = [&](int major, int minor) {
    std::string bytes = sound;
    bytes[6] = static_cast<char>(major);
    bytes[7] = static_cast<char>(minor);
    return refusal(bytes);
  };
  CHECK(version(1, 0) == "");
  for (const auto& [major, minor] : {std::pair(0, 0), std::pair(4, 0), std::pair(1, 1)})
    CHECK(version(major, minor) ==
          fmt::format("f.npy: has the .npy version {}.{}, known are 1.0 to 3.0", major, minor));
  std::string other = npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", "", 2);
  for (const size_t cut : {size_t{10}, size_t{11}, size_t{12}})  // in the length and after it
    CHECK(refusal(other.substr(0, cut)) == "f.npy: ends inside its .npy header");
  other[9] = other[10] = '\x7f';
  CHECK(error_advised([&] { parse(other); })
            .ends_with(" bytes, at most 10000 are read -> save it again with numpy.save or "
                       "numpy.savez"));
  CHECK(refusal_of("{'descr': '<f8', 'fortran_order': False, 'shape': "
                   "(999999999999999, 999999999999999)}")
            .find("need more than 2^64") != std::string::npos);
  CHECK(refusal_of("{'descr': '<f8', 'fortran_order': False, 'shape': "
                   "(999999999999999, 999999999999999, 2)}") ==
        "f.npy: holds 0 bytes of data, [999999999999999, 999999999999999, 2] of F64 need more "
        "than 2^64");
}

#include "lib/io/npy.h"

#include <fmt/core.h>

#include <array>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/zip/zip_directory.h"
#include "lib/io/zip/zip_record.h"

namespace moelora {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr const char* kResave = "save it again with numpy.save or numpy.savez";

struct Descr {
  std::string_view text;
  DType dtype;
};
constexpr std::array<Descr, 13> kDescrs = {{{"<f8", DType::F64},
                                            {"<f4", DType::F32},
                                            {"<f2", DType::F16},
                                            {"<i8", DType::I64},
                                            {"<i4", DType::I32},
                                            {"<i2", DType::I16},
                                            {"|i1", DType::I8},
                                            {"<u8", DType::U64},
                                            {"<u4", DType::U32},
                                            {"<u2", DType::U16},
                                            {"|u1", DType::U8},
                                            {"|b1", DType::BOOL},
                                            {"?", DType::BOOL}}};

// Reads {'descr': '<f4', 'fortran_order': False, 'shape': (2, 23), } and nothing else.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  NpyHeader read() {
    expect('{');
    while (!take('}')) {
      read_member();
      if (!take(',') && peek() != '}') refuse("a comma or }} was expected");
    }
    skip_space();
    if (!text_.empty()) refuse("there is text after the dict");
    if (seen_.size() != 3) refuse("descr, fortran_order and shape must all be there");
    return std::move(out_);
  }

 private:
  void read_member() {
    const std::string_view key = quoted_text();
    expect(':');
    if (!seen_.insert(key).second) refuse("the key {} was not expected", in_quotes(key));
    if (key == "descr")
      read_descr();
    else if (key == "fortran_order")
      read_order();
    else if (key == "shape")
      read_shape();
    else
      refuse("the key {} was not expected", in_quotes(key));
  }

  void read_descr() {
    skip_space();
    if (peek() == '[') refuse("a structured dtype holds no plain numbers");
    const std::string_view text = quoted_text();
    for (const Descr& known : kDescrs)
      if (known.text == text) {
        out_.dtype = known.dtype;
        return;
      }
    if (text.find('O') != std::string_view::npos)
      refuse("an array of objects is a pickle, which is never loaded");
    if (text.starts_with('>')) refuse("big-endian numbers are not read: save with astype('<f4')");
    refuse("the dtype {} is not read", in_quotes(text));
  }

  void read_order() {
    skip_space();
    if (take_word("True"))
      out_.fortran_order = true;
    else if (!take_word("False"))
      refuse("fortran_order is neither True nor False");
  }

  void read_shape() {
    expect('(');
    while (!take(')')) {
      out_.shape.push_back(extent());
      if (out_.shape.size() > kMaxNpyRank) refuse("there are too many dims");
      if (!take(',') && peek() != ')') refuse("a comma or ) was expected in shape");
    }
  }

  int64_t extent() {
    skip_space();
    int64_t value = 0;
    size_t digits = 0;
    while (digits < text_.size() && text_[digits] >= '0' && text_[digits] <= '9') {
      value = value * 10 + (text_[digits] - '0');
      if (++digits > 15) refuse("an extent of shape is too large");
    }
    if (digits == 0) refuse("an extent of shape is not a number");
    text_.remove_prefix(digits);
    return value;
  }

  std::string_view quoted_text() {
    skip_space();
    const char quote = peek();
    if (quote != '\'' && quote != '"') refuse("a quoted string was expected");
    const size_t end = text_.find(quote, 1);
    if (end == std::string_view::npos) refuse("a quote is not closed");
    const std::string_view out = text_.substr(1, end - 1);
    text_.remove_prefix(end + 1);
    return out;
  }

  bool take(char c) {
    skip_space();
    if (peek() != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  bool take_word(std::string_view word) {
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }
  void expect(char c) {
    if (!take(c)) refuse("'{}' was expected", c);
  }
  char peek() {
    skip_space();
    return text_.empty() ? '\0' : text_[0];
  }
  void skip_space() {
    const size_t first = text_.find_first_not_of(" \n");
    text_.remove_prefix(first == std::string_view::npos ? text_.size() : first);
  }

  template <class... T>
  [[noreturn]] void refuse(fmt::format_string<T...> what, T&&... values) const {
    throw Error(
        in_file(where_),
        "has a .npy header that is not sound: " + fmt::format(what, std::forward<T>(values)...),
        kResave);
  }

  std::string_view text_;
  const std::string& where_;
  NpyHeader out_;
  std::set<std::string_view> seen_;  // keys
};

[[noreturn]] void refuse_cut(const std::string& where) {
  throw Error(in_file(where), "ends inside its .npy header", "copy the file again");
}

// Magic, version, header length: where the header's text begins and how long it is.
std::pair<size_t, size_t> find_header(Bytes bytes, const std::string& where) {
  if (bytes.size() < 10) refuse_cut(where);
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0)
    throw Error(in_file(where), "does not begin as a .npy file does");
  const auto major = static_cast<int>(bytes[6]), minor = static_cast<int>(bytes[7]);
  if (major < 1 || major > 3 || minor != 0)
    throw Error(in_file(where),
                fmt::format("has the .npy version {}.{}, known are 1.0 to 3.0", major, minor));
  const size_t width = major == 1 ? 2 : 4;
  if (bytes.size() < 8 + width) refuse_cut(where);
  ZipFields field(bytes.subspan(8, width));
  const uint64_t length = major == 1 ? field.u16() : field.u32();
  if (length > kMaxNpyHeader)
    throw Error(
        in_file(where),
        fmt::format("has a .npy header of {} bytes, at most {} are read", length, kMaxNpyHeader),
        kResave);
  if (bytes.size() < 8 + width + length) refuse_cut(where);
  return {8 + width, length};
}

std::optional<uint64_t> data_bytes(const NpyHeader& header) {
  std::optional<uint64_t> out = static_cast<uint64_t>(dtype_bytes(header.dtype));
  for (const int64_t extent : header.shape)
    if (out) out = checked_mul(*out, static_cast<uint64_t>(extent));
  return out;
}

// ---- archives ----

constexpr size_t kMostArrays = 10'000;
constexpr std::string_view kEnding = ".npy";

void check_sizes(const ZipInput& zip, const std::vector<ZipEntry>& entries) {
  if (entries.size() > kMostArrays)
    zip.refuse("", "holds {} arrays, at most {} are read", entries.size(), kMostArrays);
  uint64_t left = kMaxNpzBytes;
  for (const ZipEntry& entry : entries) {
    if (entry.size > left)
      zip.refuse(entry.name, "makes the arrays larger than {} bytes", kMaxNpzBytes);
    left -= entry.size;
  }
}

}  // namespace

NpyArray parse_npy(Bytes bytes, const std::string& where) {
  const auto [begin, length] = find_header(bytes, where);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + begin, length);
  NpyArray out;
  out.header = HeaderReader(text, where).read();
  out.header.data_begin = begin + length;
  const Bytes data = bytes.subspan(out.header.data_begin);
  const auto expected = data_bytes(out.header);
  if (!expected || *expected != data.size()) {
    std::string need = "more than 2^64";
    if (expected) need = std::to_string(*expected);
    throw Error(in_file(where),
                fmt::format("holds {} bytes of data, {} of {} need {}", data.size(),
                            to_string(out.header.shape), dtype_name(out.header.dtype), need),
                "copy the file again");
  }
  out.data.assign(data.begin(), data.end());
  return out;
}

std::map<std::string, NpyArray> read_npz(const File& file) {
  const ZipInput zip{file, kNumpySavez};
  const auto entries = read_zip_directory(file, zip.writer, [&](const std::string& name) {
    if (!name.ends_with(kEnding))
      zip.refuse(name, "is not an array: its name does not end in .npy");
  });
  check_sizes(zip, entries);
  std::map<std::string, NpyArray> out;
  for (const ZipEntry& entry : entries)
    out.emplace(entry.name.substr(0, entry.name.size() - kEnding.size()),
                parse_npy(read_zip_record(zip, entry), file.path() + ": " + printable(entry.name)));
  return out;
}

}  // namespace moelora

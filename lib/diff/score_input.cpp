#include "lib/diff/score_input.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <numeric>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/diff/number_list.h"
#include "lib/io/file.h"
#include "lib/io/npy.h"
#include "lib/io/safetensors.h"
#include "lib/io/sniff.h"
#include "lib/io/torch/torch_file.h"

namespace moelora {
namespace {

constexpr JsonLimits kLimits{uint64_t{256} << 20, 32};
constexpr int64_t kMostValues = 1 << 26;

template <class T>
std::vector<double> as_doubles(std::span<const std::byte> bytes) {
  std::vector<double> out(bytes.size() / sizeof(T));
  for (size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    out[i] = static_cast<double>(value);
  }
  return out;
}

struct IntegerType {
  DType dtype;
  std::vector<double> (*as_doubles)(std::span<const std::byte> bytes);
};

constexpr std::array<IntegerType, 8> kIntegers = {{{DType::I64, as_doubles<int64_t>},
                                                   {DType::U64, as_doubles<uint64_t>},
                                                   {DType::I32, as_doubles<int32_t>},
                                                   {DType::U32, as_doubles<uint32_t>},
                                                   {DType::I16, as_doubles<int16_t>},
                                                   {DType::U16, as_doubles<uint16_t>},
                                                   {DType::U8, as_doubles<uint8_t>},
                                                   {DType::BOOL, as_doubles<uint8_t>}}};

std::vector<double> values_of(const Tensor& tensor, const std::string& where) {
  if (is_float(tensor.dtype())) return read_double(tensor);
  for (const IntegerType& type : kIntegers)
    if (type.dtype == tensor.dtype()) return type.as_doubles(tensor.read());
  throw Error(where, fmt::format("is {}: neither token ids nor log-probabilities",
                                 dtype_name(tensor.dtype())));
}

// Of three dims: the best tokens of each position.
bool is_top(std::string_view name) { return name == "top_tokens" || name == "top_logprobs"; }

// Whether an array can hold scores: few dims, something in it, no more than is read.
bool is_wanted(const std::string& name, const Shape& shape, const std::string& where) {
  if (shape.empty() || shape.size() > (is_top(name) ? 3 : 2)) return false;
  int64_t elements = 1;
  for (const int64_t extent : shape) {
    if (extent == 0) return false;
    if (extent > kMostValues / elements)
      throw Error(
          where, fmt::format("is {}: at most {} elements are read", to_string(shape), kMostValues));
    elements *= extent;
  }
  return true;
}

void add_array(const std::string& name, const Tensor& tensor, ScoreInput& out) {
  const std::string where = out.path + (name.empty() ? "" : ": " + printable(name));
  const Shape& shape = tensor.shape();
  if (!is_wanted(name, shape, where)) return;
  ScoreArray array{1, shape.back(), values_of(tensor, where)};
  if (shape.size() > 1) array.rows = shape[0];
  if (shape.size() > 2) array.depth = shape[2], array.columns = shape[1];
  out.arrays.emplace(name, std::move(array));
}

void add_array(const std::string& name, NpyArray array, ScoreInput& out) {
  Shape shape = array.header.shape;
  const bool columns_first = array.header.fortran_order && shape.size() > 1;
  std::vector<int> order(shape.size());
  std::iota(order.rbegin(), order.rend(), 0);
  if (columns_first) std::reverse(shape.begin(), shape.end());
  const auto source =
      std::make_shared<MemorySource>(array.header.dtype, std::move(array.data), out.path);
  const Tensor tensor(source, shape);
  add_array(name, columns_first ? tensor.permute(order) : tensor, out);
}

bool is_number(const PickleValue& value) {
  return value.kind == PickleValue::Kind::integer || value.kind == PickleValue::Kind::real;
}

bool add_numbers(const std::vector<PickleValue>& items, ScoreArray& out) {
  for (const PickleValue& item : items) {
    if (!is_number(item)) return false;
    out.values.push_back(item.kind == PickleValue::Kind::real ? item.real()
                                                              : static_cast<double>(item.number));
  }
  out.columns = static_cast<int64_t>(items.size());
  return static_cast<int64_t>(out.values.size()) <= kMostValues;
}

// A list of numbers, or of lists of equally many numbers.
std::optional<ScoreArray> list_array(const Pickle& pickle, const PickleValue& value) {
  if (value.kind != PickleValue::Kind::list) return std::nullopt;
  const auto& items = pickle.lists[value.index()].items;
  ScoreArray out;
  if (items.empty()) return std::nullopt;
  if (is_number(items[0])) return add_numbers(items, out) ? std::optional(out) : std::nullopt;
  out.rows = static_cast<int64_t>(items.size());
  for (const PickleValue& row : items) {
    if (row.kind != PickleValue::Kind::list) return std::nullopt;
    const auto& cells = pickle.lists[row.index()].items;
    if (&row != items.data() && static_cast<int64_t>(cells.size()) != out.columns)
      return std::nullopt;
    if (!add_numbers(cells, out)) return std::nullopt;
  }
  return out;
}

void add_torch(FilePtr file, ScoreInput& out) {
  const TorchArchive archive = open_torch_archive(std::move(file));
  const Pickle& pickle = archive.pickle;
  if (pickle.root.kind != PickleValue::Kind::dict)
    throw Error(out.path, fmt::format("holds {}, expected a dict of names to tensors or lists",
                                      describe(pickle, pickle.root)));
  for (const auto& [key, value] : pickle.dicts[pickle.root.index()].items) {
    if (key.kind != PickleValue::Kind::text) continue;
    const std::string name(pickle.texts[key.index()]);
    if (value.kind == PickleValue::Kind::tensor)
      add_array(name, archive.tensor(value, name), out);
    else if (auto array = list_array(pickle, value))
      out.arrays.emplace(name, std::move(*array));
  }
}

std::string text_of(const File& file) {
  if (file.size() > kLimits.bytes)
    throw Error(file.path(), fmt::format("has {} bytes, at most {} are read at once", file.size(),
                                         kLimits.bytes));
  std::string out(file.size(), '\0');
  file.read(0, out.size(), reinterpret_cast<std::byte*>(out.data()));
  return out;
}

// JSON has no word for what is not finite; Python writes -Infinity, Infinity and NaN. Each outside
// a string is put between quotes, where is_score() knows it.
std::string quote_not_finite(std::string_view text) {
  constexpr std::string_view kWords[] = {"-Infinity", "Infinity", "NaN"};
  if (text.find("Infinity") == std::string_view::npos && text.find("NaN") == std::string_view::npos)
    return std::string(text);
  std::string out;
  bool in_string = false;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (in_string && c == '\\' && i + 1 < text.size()) {
      out += text.substr(i, 2);
      i += 2;
      continue;
    }
    if (c == '"') in_string = !in_string;
    const auto word = std::find_if(std::begin(kWords), std::end(kWords), [&](std::string_view w) {
      return !in_string && c == w.front() && text.substr(i).starts_with(w);
    });
    const bool found = word != std::end(kWords);
    out += found ? '"' + std::string(*word) + '"' : std::string(1, c);
    i += found ? word->size() : 1;
  }
  return out;
}

// One document over several lines, or one a line: a line that is an object by itself and is not the
// last one decides.
bool is_json_lines(std::string_view text) {
  const auto first = take_line(text), second = take_line(text);
  return second && first->starts_with('{') && first->ends_with('}') && second->starts_with('{');
}

void add_json(std::string_view text, ScoreInput& out) {
  out.numbers = read_number_list(text);
  if (out.numbers.empty()) out.json = parse_json(quote_not_finite(text), out.path, kLimits);
}

void add_table(std::string text, ScoreInput& out) {
  if (const auto bad = find_invalid_utf8(text))
    throw Error(out.path, fmt::format("is not text: byte {} is not UTF-8", *bad));
  out.table = std::move(text);
}

void add_safetensors(const std::string& path, ScoreInput& out) {
  for (const auto& [name, tensor] : open_safetensors(path).tensors) add_array(name, tensor, out);
}

void add_npy(const File& file, ScoreInput& out) {
  const std::string bytes = text_of(file);
  add_array("", parse_npy(std::as_bytes(std::span(bytes)), out.path), out);
}

void add_npz(const File& file, ScoreInput& out) {
  for (auto& [name, array] : read_npz(file)) add_array(name, std::move(array), out);
}

bool begins_with(const File& file, std::string_view magic) {
  if (file.size() < magic.size()) return false;
  std::string head(magic.size(), '\0');
  file.read(0, head.size(), reinterpret_cast<std::byte*>(head.data()));
  return head == magic;
}

}  // namespace

std::optional<std::string_view> take_line(std::string_view& text) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) return line;
  }
  return std::nullopt;
}

ScoreInput read_score_input(const std::string& path) {
  ScoreInput out;
  out.path = path;
  FilePtr file = File::open(path);
  if (path.ends_with(".safetensors")) {
    add_safetensors(path, out);
  } else if (begins_with(*file, "\x93NUMPY")) {
    add_npy(*file, out);
  } else if (const FileKind kind = sniff(*file); kind == FileKind::zip || kind == FileKind::npz) {
    path.ends_with(".npz") ? add_npz(*file, out) : add_torch(std::move(file), out);
  } else {
    std::string text = text_of(*file);
    const size_t first = text.find_first_not_of(" \t\r\n");
    if (first == std::string::npos) throw Error(path, "is empty");
    if (text[first] != '{' && text[first] != '[')
      add_table(std::move(text), out);
    else if (is_json_lines(text))
      out.lines = std::move(text);
    else
      add_json(text, out);
  }
  return out;
}

ScoreInput line_input(std::string_view line, const std::string& path, const std::string& where) {
  ScoreInput out;
  out.path = path;
  out.json = Json::array({parse_json(quote_not_finite(line), where, kLimits)});
  return out;
}

}  // namespace moelora

#include "lib/diff/score_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "lib/adapter/tensor_name.h"
#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
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

std::vector<double> floats_as_doubles(DType dtype, std::span<const std::byte> bytes) {
  std::vector<double> out(bytes.size() / static_cast<size_t>(dtype_bytes(dtype)));
  if (dtype == DType::F64)
    std::memcpy(out.data(), bytes.data(), bytes.size());
  else
    cast_elements(dtype, DType::F64, static_cast<int64_t>(out.size()), bytes.data(),
                  reinterpret_cast<std::byte*>(out.data()));
  return out;
}

std::vector<double> values_of(DType dtype, std::span<const std::byte> bytes,
                              const std::string& where) {
  if (is_float(dtype)) return floats_as_doubles(dtype, bytes);
  switch (dtype) {
    case DType::I64:
      return as_doubles<int64_t>(bytes);
    case DType::U64:
      return as_doubles<uint64_t>(bytes);
    case DType::I32:
      return as_doubles<int32_t>(bytes);
    case DType::U32:
      return as_doubles<uint32_t>(bytes);
    case DType::I16:
      return as_doubles<int16_t>(bytes);
    case DType::U16:
      return as_doubles<uint16_t>(bytes);
    case DType::U8:
    case DType::BOOL:
      return as_doubles<uint8_t>(bytes);
    default:
      throw Error(where,
                  fmt::format("is {}: neither token ids nor log-probabilities", dtype_name(dtype)));
  }
}

// Whether an array can hold scores: one or two dims, something in it, no more than is read.
bool is_wanted(const Shape& shape, const std::string& where) {
  if (shape.empty() || shape.size() > 2) return false;
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

ScoreArray array_of(const Shape& shape, std::vector<double> values) {
  return {shape.size() == 2 ? shape[0] : 1, shape.back(), std::move(values)};
}

void add_array(const std::string& name, const Tensor& tensor, ScoreInput& out) {
  const std::string where = out.path + ": " + printable(name);
  if (is_wanted(tensor.shape(), where))
    out.arrays.emplace(name,
                       array_of(tensor.shape(), values_of(tensor.dtype(), tensor.read(), where)));
}

// Columns first in memory: element (r, c) is at c * rows + r.
void make_row_major(ScoreArray& array) {
  std::vector<double> out(array.values.size());
  for (int64_t r = 0; r < array.rows; ++r)
    for (int64_t c = 0; c < array.columns; ++c)
      out[static_cast<size_t>(r * array.columns + c)] =
          array.values[static_cast<size_t>(c * array.rows + r)];
  array.values = std::move(out);
}

void add_array(const std::string& name, const NpyArray& array, ScoreInput& out) {
  const std::string where = out.path + (name.empty() ? "" : ": " + printable(name));
  const Shape& shape = array.header.shape;
  if (!is_wanted(shape, where)) return;
  ScoreArray values = array_of(shape, values_of(array.header.dtype, array.data, where));
  if (array.header.fortran_order && shape.size() == 2) make_row_major(values);
  out.arrays.emplace(name, std::move(values));
}

bool is_number(const PickleValue& value) {
  return value.kind == PickleValue::Kind::integer || value.kind == PickleValue::Kind::real;
}

// A list of numbers, or of lists of as many numbers each.
std::optional<ScoreArray> list_array(const Pickle& pickle, const PickleValue& value) {
  if (value.kind != PickleValue::Kind::list) return std::nullopt;
  const auto& items = pickle.lists[value.index()].items;
  if (items.empty()) return std::nullopt;
  ScoreArray out;
  const auto add_row = [&](const std::vector<PickleValue>& row) {
    for (const PickleValue& item : row) {
      if (!is_number(item)) return false;
      out.values.push_back(item.kind == PickleValue::Kind::real ? item.real()
                                                                : static_cast<double>(item.number));
    }
    return static_cast<int64_t>(out.values.size()) <= kMostValues;
  };
  out.columns = static_cast<int64_t>(items.size());
  if (is_number(items[0])) return add_row(items) ? std::optional(out) : std::nullopt;
  out.rows = out.columns;
  for (const PickleValue& row : items) {
    if (row.kind != PickleValue::Kind::list) return std::nullopt;
    const auto& cells = pickle.lists[row.index()].items;
    out.columns = static_cast<int64_t>(cells.size());
    if (cells.size() != pickle.lists[items[0].index()].items.size() || !add_row(cells))
      return std::nullopt;
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

uint64_t bounded_size(const File& file) {
  if (file.size() > kLimits.bytes)
    throw Error(file.path(), fmt::format("has {} bytes, at most {} are read at once", file.size(),
                                         kLimits.bytes));
  return file.size();
}

std::string text_of(const File& file) {
  std::string out(bounded_size(file), '\0');
  file.read(0, out.size(), reinterpret_cast<std::byte*>(out.data()));
  return out;
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) out.push_back(line);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  return out;
}

// One document over several lines, or one a line: a line that is an object by itself and is not the
// last one decides.
void add_json(std::string_view text, ScoreInput& out) {
  const auto lines = lines_of(text);
  if (lines.size() > 1 && lines[0].starts_with('{') && lines[0].ends_with('}') &&
      lines[1].starts_with('{')) {
    for (size_t i = 0; i < lines.size(); ++i)
      out.json_lines.push_back(
          parse_json(lines[i], fmt::format("{}, line {}", out.path, i + 1), kLimits));
    return;
  }
  out.json = parse_json(text, out.path, kLimits);
}

// Fields with quotes may hold commas; a doubled quote is one.
std::vector<std::string> fields_of(std::string_view line) {
  std::vector<std::string> out(1);
  bool in_quotes = false;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"' && in_quotes && i + 1 < line.size() && line[i + 1] == '"')
      out.back() += line[i++];
    else if (line[i] == '"')
      in_quotes = !in_quotes;
    else if (line[i] == ',' && !in_quotes)
      out.emplace_back();
    else
      out.back() += line[i];
  }
  return out;
}

void add_table(std::string_view text, ScoreInput& out) {
  if (const auto bad = find_invalid_utf8(text))
    throw Error(out.path, fmt::format("is not text: byte {} is not UTF-8", *bad));
  for (std::string_view line : lines_of(text)) out.table.push_back(fields_of(line));
}

void add_safetensors(const std::string& path, ScoreInput& out) {
  for (const auto& [name, tensor] : open_safetensors(path).tensors) add_array(name, tensor, out);
}

void add_npy(const File& file, ScoreInput& out) {
  std::vector<std::byte> bytes(bounded_size(file));
  file.read(0, bytes.size(), bytes.data());
  add_array("", parse_npy(bytes, out.path), out);
}

void add_npz(const File& file, ScoreInput& out) {
  for (const auto& [name, array] : read_npz(file)) add_array(name, array, out);
}

bool begins_with(const File& file, std::string_view magic) {
  if (file.size() < magic.size()) return false;
  std::string head(magic.size(), '\0');
  file.read(0, head.size(), reinterpret_cast<std::byte*>(head.data()));
  return head == magic;
}

}  // namespace

ScoreInput read_score_input(const std::string& path) {
  ScoreInput out;
  out.path = path;
  FilePtr file = File::open(path);
  if (path.ends_with(".safetensors")) {
    add_safetensors(path, out);
  } else if (begins_with(*file, "\x93NUMPY")) {
    add_npy(*file, out);
  } else if (sniff(*file) == FileKind::zip) {
    path.ends_with(".npz") ? add_npz(*file, out) : add_torch(std::move(file), out);
  } else {
    const std::string text = text_of(*file);
    const size_t first = text.find_first_not_of(" \t\r\n");
    if (first == std::string::npos) throw Error(path, "is empty");
    const bool json = text[first] == '{' || text[first] == '[';
    json ? add_json(text, out) : add_table(text, out);
  }
  return out;
}

std::vector<const Json*> documents(const ScoreInput& input) {
  std::vector<const Json*> out;
  for (const Json& line : input.json_lines) out.push_back(&line);
  if (!input.json) return out;
  if (!input.json->is(Json::Kind::array)) return {&*input.json};
  for (const Json& item : input.json->items()) out.push_back(&item);
  return out;
}

std::optional<double> number_or_null(const Json& value, const std::string& where) {
  if (value.is(Json::Kind::null)) return std::nullopt;
  if (!value.is_number())
    throw Error(place_of(value, where),
                fmt::format("{} where a log-probability was expected", value.kind_name()));
  return value.as_double();
}

const Json& member(const Json& object, std::string_view key, Json::Kind kind,
                   const std::string& path) {
  const Json* value = object.find(key);
  if (value == nullptr) throw Error(place_of(object, path), fmt::format("has no \"{}\"", key));
  if (!value->is(kind))
    throw Error(place_of(*value, path),
                fmt::format("\"{}\" is {}, which was not expected", key, value->kind_name()));
  return *value;
}

std::optional<int64_t> token_id_of(std::string_view text) {
  constexpr std::string_view kPrefix = "token_id:";
  if (!text.starts_with(kPrefix)) return std::nullopt;
  return parse_index(text.substr(kPrefix.size()));
}

Triple read_triple(const Json& entry, const std::string& path) {
  if (!entry.is(Json::Kind::array) || entry.items().size() < 2 ||
      !entry.items()[1].is(Json::Kind::integer))
    throw Error(place_of(entry, path), "is not [log-probability, token id, text]");
  const auto& items = entry.items();
  const bool text = items.size() > 2 && items[2].is(Json::Kind::string);
  return {number_or_null(items[0], path), items[1].as_int(), text ? items[2].as_string() : ""};
}

void tidy(Sequence& sequence) {
  const auto& texts = sequence.texts;
  if (std::all_of(texts.begin(), texts.end(), [](const auto& text) { return text.empty(); }))
    sequence.texts.clear();
  const auto& top = sequence.top;
  if (std::all_of(top.begin(), top.end(), [](const auto& list) { return list.empty(); }))
    sequence.top.clear();
}

}  // namespace moelora

#include "lib/io/shard_index.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "lib/base/error.h"
#include "lib/base/numbers.h"
#include "lib/base/utf8.h"
#include "lib/io/json_scan.h"
#include "lib/io/json_value.h"
#include "lib/io/safetensors_header.h"

namespace moelora {
namespace {

constexpr int kMaxDepth = 16;
constexpr size_t kMaxTensors = 1'000'000, kMaxSections = 32;

// Why a name may not be opened beside the index, with the rules of Windows on every system: an
// index is made to be copied. Empty when it may.
std::string_view fault_of_name(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.find_first_of("/\\") != std::string_view::npos) return "leads to another folder";
  if (name.find(':') != std::string_view::npos) return "names a drive";
  if (std::any_of(name.begin(), name.end(), [](char c) { return c >= 0 && c < 0x20; }))
    return "holds a control character";
  if (!name.ends_with(kSafetensorsEnding) || name == kSafetensorsEnding)
    return "is not a .safetensors file";
  return {};
}

class IndexReader final : public JsonHandler {
 public:
  IndexReader(std::string_view text, const std::string& where, ShardIndex& index)
      : text_(text), where_(where), index_(index) {}

  void on(JsonToken& token) override {
    const bool closes = token.kind == Kind::end_object || token.kind == Kind::end_array;
    if (closes) --depth_;
    if (depth_ == 0)
      on_root(token);
    else if (depth_ == 1)
      on_section(token);
    else if (section_ == "weight_map" && !closes)
      on_weight(token);
    else if (section_ == "metadata" && depth_ == 2)
      on_metadata(token);
    if (token.kind == Kind::begin_object || token.kind == Kind::begin_array) ++depth_;
  }

  Error error_at(uint64_t offset, std::string what, std::string hint) const override {
    return {place_in(text_, offset, where_), std::move(what), std::move(hint)};
  }

  void finish() const {
    if (index_.weight_map.empty())
      throw Error(in_file(where_), sections_.contains("weight_map")
                                       ? "names no tensor: its weight_map is empty"
                                       : "names no tensor: it has no weight_map");
  }

 private:
  using Kind = JsonToken::Kind;

  template <class... T>
  [[noreturn]] void refuse(const JsonToken& token, fmt::format_string<T...> what,
                           T&&... values) const {
    throw error_at(token.offset, fmt::format(what, std::forward<T>(values)...), {});
  }

  void on_root(const JsonToken& token) const {
    if (token.kind != Kind::begin_object && token.kind != Kind::end_object)
      refuse(token, "the index is {}, expected an object", kind_name(token.kind));
  }

  void on_section(JsonToken& token) {
    if (token.kind == Kind::key) {
      section_ = token.text;
      if (!sections_.insert(section_).second)
        refuse(token, "the key {} stands twice in this object", in_quotes(section_));
      if (sections_.size() > kMaxSections)
        throw error_at(token.offset, fmt::format("has more than {} keys", kMaxSections),
                       "An index has two: metadata and weight_map.");
      if (section_ != "weight_map" && section_ != "metadata")
        index_.warnings.push_back(fmt::format("{}: unknown key {}", where_, in_quotes(section_)));
    } else if (section_ == "weight_map" && token.kind != Kind::begin_object &&
               token.kind != Kind::end_object) {
      refuse(token, "weight_map is {}, expected an object of strings", kind_name(token.kind));
    }
  }

  void on_weight(JsonToken& token) {
    if (token.kind == Kind::key) return read_tensor_name(token);
    if (token.kind != Kind::string)
      refuse(token, "the file of tensor {} is {}, expected a string", in_quotes(tensor_->first),
             kind_name(token.kind));
    if (const auto fault = fault_of_name(token.text); !fault.empty())
      throw error_at(token.offset,
                     fmt::format("the file {} of tensor {} {}", in_quotes(token.text),
                                 in_quotes(tensor_->first), fault),
                     "A shard lies beside its index and has a bare *.safetensors name.");
    tensor_->second = std::move(token.text);
  }

  void read_tensor_name(JsonToken& token) {
    if (index_.weight_map.size() == kMaxTensors)
      throw error_at(token.offset, fmt::format("names more than {} tensors", kMaxTensors),
                     "Split the model into folders, each with an index.");
    bool is_new = false;
    std::tie(tensor_, is_new) = index_.weight_map.try_emplace(std::move(token.text));
    if (!is_new)
      refuse(token, "the tensor {} stands twice in weight_map", in_quotes(tensor_->first));
  }

  void on_metadata(const JsonToken& token) {
    if (token.kind == Kind::key) {
      is_total_size_ = token.text == "total_size";
    } else if (is_total_size_) {
      is_total_size_ = false;
      read_total_size(token);
    }
  }

  void read_total_size(const JsonToken& token) {
    const auto size = parse_number<uint64_t>(token.text);
    if (token.kind == Kind::number && size)
      index_.total_size = size;
    else
      index_.warnings.push_back(fmt::format("{}: total_size is not a whole number of bytes",
                                            place_in(text_, token.offset, where_).text()));
  }

  std::string_view text_;
  const std::string& where_;
  ShardIndex& index_;
  int depth_ = 0;
  std::string section_;
  std::set<std::string> sections_;
  std::map<std::string, std::string>::iterator tensor_;
  bool is_total_size_ = false;
};

// STEMNUMBER-of-COUNT.safetensors, the stem with its dash, both numbers of as many digits.
struct NumberedName {
  std::string_view stem, number, count;

  static std::optional<NumberedName> parse(std::string_view name) {
    const size_t of = name.rfind("-of-");
    if (of == 0 || of == std::string_view::npos || !name.ends_with(kSafetensorsEnding))
      return std::nullopt;
    const size_t dash = name.rfind('-', of - 1);
    if (dash == std::string_view::npos) return std::nullopt;
    const auto number = name.substr(dash + 1, of - dash - 1);
    const auto count = name.substr(of + 4, name.size() - kSafetensorsEnding.size() - of - 4);
    for (const std::string_view digits : {number, count})
      if (digits.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
    if (number.empty() || number.size() != count.size() || number.size() > 6) return std::nullopt;
    return NumberedName{name.substr(0, dash + 1), number, count};
  }
};

}  // namespace

std::vector<std::string> ShardIndex::files() const {
  std::set<std::string> names;
  for (const auto& [tensor, file] : weight_map) names.insert(file);
  return {names.begin(), names.end()};
}

ShardIndex parse_shard_index(std::string_view text, const std::string& where) {
  ShardIndex out;
  IndexReader reader(text, where, out);
  scan_json(text, kMaxDepth, reader);
  reader.finish();
  return out;
}

std::vector<std::string> missing_numbers(const std::vector<std::string>& files) {
  constexpr size_t kEnough = 5;
  std::vector<std::string> out;
  const std::set<std::string_view> present(files.begin(), files.end());
  std::set<std::pair<std::string_view, std::string_view>> series;
  for (const std::string& file : files) {
    const auto name = NumberedName::parse(file);
    if (!name || !series.insert({name->stem, name->count}).second) continue;
    const int count = std::stoi(std::string(name->count));
    for (int i = 1; i <= count && out.size() < kEnough; ++i) {
      const std::string expected = fmt::format("{}{:0{}}-of-{}{}", name->stem, i,
                                               name->count.size(), name->count, kSafetensorsEnding);
      if (!present.contains(expected)) out.push_back(expected);
    }
  }
  return out;
}

std::string shard_name(const std::string& stem, size_t number, size_t count) {
  return fmt::format("{}-{:05}-of-{:05}{}", stem, number, count, kSafetensorsEnding);
}

std::string shard_index_text(const std::map<std::string, std::string>& weight_map,
                             uint64_t total_size) {
  Json::Members files;
  for (const auto& [tensor, file] : weight_map) files.emplace_back(tensor, file);
  const Json index =
      Json::object({{"metadata", Json::object({{"total_size", static_cast<int64_t>(total_size)}})},
                    {"weight_map", Json::object(std::move(files))}});
  return index.dump() + "\n";
}

}  // namespace moelora

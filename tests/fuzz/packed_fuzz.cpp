// Two adapters as adapter_text.h writes them down, with a line "====" between them: the source, and
// what is said to be packed from it. Their values follow from names and shapes, so that equal names
// hold equal values and some others do too; "base 2" reads both with that one of kBases, "type 14"
// gives the tensors that follow that DType.

#include <sstream>

#include "lib/compare/packed_check.h"
#include "lib/model/base_model.h"
#include "tests/fuzz/adapter_text.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace moelora;

struct Input {
  TensorMap tensors;
  Json config;
  std::optional<BaseModel> base;
};

uint64_t hash_of(std::string_view text) {  // FNV-1a
  uint64_t hash = 0xCBF29CE484222325U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  return hash;
}

// Small finite numbers, some of them zero; of a few kinds, so that tensors are each other's.
std::vector<std::byte> values(std::string_view name, DType dtype, int64_t elements) {
  std::vector<std::byte> out(
      (static_cast<size_t>(elements) * static_cast<size_t>(dtype_bits(dtype)) + 7) / 8);
  uint64_t state = hash_of(name) % 5;
  for (std::byte& b : out) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    b = static_cast<std::byte>(state >> 59U | (state >> 40U & 0x20U));
  }
  return out;
}

void add(const std::string& name, DType dtype, std::istringstream& words, Input& input) {
  TensorMap one;
  add_tensor(name, words, one);
  for (const auto& [key, zeros] : one)
    input.tensors[key] = Tensor(
        std::make_shared<MemorySource>(dtype, values(key, dtype, zeros.elements())), zeros.shape());
}

Input parse(std::string_view text) {
  const AdapterText parts = split_adapter(text);
  Input input;
  input.config = parse_json(parts.config, "f");
  DType dtype = DType::F32;
  std::istringstream lines{std::string(parts.lines)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    size_t number = kBases.size();
    if (first == "base" || first == "type") words >> number;
    if (first == "base") {
      input.base = base_model(number);
    } else if (first == "type") {
      const auto given = static_cast<DType>(number % kDTypeCount);
      if (dtype_bits(given) % 8 == 0) dtype = given;
    } else if (!first.empty()) {
      add(first, dtype, words, input);
    }
  }
  return input;
}

packed::Report check(const Input& packed, const Input& source) {
  packed::CheckOptions options;
  options.spec = source.base ? &source.base->spec : nullptr;
  options.threads = 1;
  return packed::check_packed({packed.tensors, packed.config, "packed", {}},
                              {source.tensors, source.config, "source", {}}, options);
}

}  // namespace

// Any two adapters are compared, or an Error says why not; and one that can be read is itself.
void fuzz(std::string_view text) {
  const size_t cut = std::min(text.find("\n====\n"), text.size());
  const Input source = parse(text.substr(0, cut));
  require(check(source, source).sound());
  const Input packed = parse(text.substr(std::min(cut + 6, text.size())));
  for (const packed::Fault& fault : check(packed, source).faults) require(!fault.text().empty());
}

// An adapter as adapter_text.h writes it down. Three words of their own instead of a tensor: "base
// 2" reads it with that one of kBases, "order expert-major" and "roles swapped" say what the flags
// would.

#include <sstream>

#include "lib/adapter/convert.h"
#include "lib/compare/verify_conversion.h"
#include "lib/model/base_model.h"
#include "tests/fuzz/adapter_text.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace moelora;

struct Input {
  AdapterFiles files;
  std::optional<BaseModel> base;
  ReadOptions read;
};

void add_line(const std::string& line, Input& input) {
  std::istringstream words(line);
  std::string first, second;
  words >> first;
  if (first == "base") {
    size_t number = kBases.size();
    words >> number;
    input.base = base_model(number);
  } else if (first == "order" || first == "roles") {
    words >> second;
    if (first == "order") input.read.b_order = parse_b_order(second);
    if (first == "roles") input.read.roles = parse_roles(second);
  } else if (!first.empty()) {
    add_tensor(first, words, input.files.tensors);
  }
}

Input parse(std::string_view text) {
  const AdapterText parts = split_adapter(text);
  Input input;
  input.files.config = parse_adapter_config(parse_json(parts.config, "f"), "f");
  std::istringstream lines{std::string(parts.lines)};
  for (std::string line; std::getline(lines, line);) add_line(line, input);
  return input;
}

// Whether `packed` says what the input says; nullopt where either makes no sense to a reader that
// looks at more than lib/adapter does.
std::optional<bool> says_the_same(const packed::AdapterInput& packed, const Conversion& c) {
  packed::CheckOptions options;
  options.spec = c.input.base ? &c.input.base->spec : nullptr;
  options.threads = 1;
  options.fitted = false;
  options.products = joins_modules(c);
  const AdapterFiles& in = c.input.files;
  try {
    return packed::check_packed(
               packed, {in.tensors, in.config.json, "f", reading_of(c.input.adapter)}, options)
        .sound();
  } catch (const Error&) {
    return std::nullopt;
  }
}

// What was written is what was read, by a check that shares neither names nor index maps with
// reader and writer.
void require_verified(const Conversion& c) {
  const AdapterFiles& in = c.input.files;
  const packed::AdapterInput itself{in.tensors, in.config.json, "f", reading_of(c.input.adapter)};
  if (says_the_same(itself, c)) require(says_the_same({c.tensors, c.config, "w", {}}, c) == true);
}

}  // namespace

// What can be read can be written in each layout and verified, or an Error says why not.
void fuzz(std::string_view text) {
  Input input = parse(text);
  const LoadedAdapter loaded =
      interpret_adapter(std::move(input.files), std::move(input.base), "", input.read);
  for (const Layout* layout : all_layouts()) {
    PlanOptions options;
    options.to = layout->id;
    try {
      require_verified(plan_conversion(loaded, options));
    } catch (const Error&) {
    }
  }
}

#include "lib/check/subject/base_headers.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/io/file.h"
#include "lib/io/weights.h"
#include "lib/model/base_model.h"

namespace moelora {

namespace {

bool holds_safetensors(const std::string& folder) {
  return !ending_in(files_in(folder), {kSafetensorsEnding}).empty();
}

// Files that open_weights() takes for the model's: pytorch_model.bin is not one of them.
bool holds_weights(const std::string& folder) {
  const auto found = ending_in(files_in(folder), {kSafetensorsEnding, ".bin", ".pt", ".pth"});
  return std::any_of(found.begin(), found.end(),
                     [](const std::string& name) { return name.starts_with("model"); });
}

}  // namespace

const BaseHeaders::Weight* BaseHeaders::find_linear(std::string_view module) const {
  const auto at = weights.find(std::string(module) + ".weight");
  if (at == weights.end() || at->second.shape.size() != 2 || !is_float(at->second.dtype))
    return nullptr;
  return &at->second;
}

namespace {

std::string not_looked_at(const Error& error) {
  return fmt::format("the base model's weights were not looked at, its config alone was: {}",
                     error.what());
}

}  // namespace

std::shared_ptr<const BaseHeaders> read_base_headers(const BaseModel& base, std::string& note) {
  if (base.folder.empty()) {
    note = fmt::format(
        "the base model is {}: modules and shapes were held against it, not against weights",
        base.origin);
    return nullptr;
  }
  if (base.followed && !holds_safetensors(base.folder)) {
    note = fmt::format(
        "the base model's weights were not looked at: {} holds no safetensors, and what an adapter "
        "names is read no further",
        base.folder);
    return nullptr;
  }
  try {
    auto out = std::make_shared<BaseHeaders>();
    for (const auto& [name, tensor] :
         open_weights(base.folder, {"model"}, {false, base.links}).tensors)
      out->weights.emplace_hint(out->weights.end(), name,
                                BaseHeaders::Weight{tensor.dtype(), tensor.shape()});
    return out;
  } catch (const MachineError&) {
    throw;
  } catch (const CannotOpen& error) {
    if (!base.followed) throw;
    note = not_looked_at(error);
    return nullptr;
  } catch (const Error& error) {
    if (!base.followed && holds_weights(base.folder)) throw;
    note = not_looked_at(error);
    return nullptr;
  }
}

}  // namespace moelora

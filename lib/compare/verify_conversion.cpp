#include "lib/compare/verify_conversion.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/compare/bits/diagnosis.h"
#include "lib/io/weights.h"

namespace moelora {
namespace {

// `module` of a fault: "lm_head", "model.embed_tokens (embedding)"; what was left out is named as
// it was read: "lm_head", "model.embed_tokens.lora_embedding_A", "model.norm.weight".
bool names(const std::vector<LeftOut>& parts, const std::string& module) {
  const std::string factors = module.substr(0, module.find(" (embedding)")) + ".lora_embedding_";
  for (const LeftOut& part : parts)
    for (const std::string& dropped : part.modules)
      if (module == dropped || module.starts_with(dropped + ".") || dropped == module + ".weight" ||
          dropped.starts_with(factors))
        return true;
  return false;
}

// What --for may do: leave out what --drop names, and round where a repair says so.
bool is_planned(const packed::Fault& fault, const Changes& changes) {
  if (fault.mistake == Mistake::rounding) return !changes.made.empty();
  return fault.mistake == Mistake::missing && fault.layers.empty() &&
         std::all_of(fault.modules.begin(), fault.modules.end(),
                     [&](const std::string& module) { return names(changes.left_out, module); });
}

void check_faults(const std::string& where, std::vector<packed::Fault> faults,
                  const std::optional<Changes>& changes) {
  if (changes)
    std::erase_if(faults, [&](const packed::Fault& fault) { return is_planned(fault, *changes); });
  if (faults.empty()) return;
  std::string text = "verification failed: " + faults.front().text();
  if (faults.size() > 1) text += fmt::format(", and {} more kinds of fault", faults.size() - 1);
  throw Error(where, text, "this is a fault of lora-convert: please report it with the input");
}

}  // namespace

bool joins_modules(const Conversion& c) {
  const auto& before = c.input.adapter.dense;
  return std::any_of(c.adapter.dense.begin(), c.adapter.dense.end(),
                     [&](const auto& entry) { return before.count(entry.first) == 0; });
}

packed::Reading reading_of(const Adapter& adapter) {
  packed::Reading out;
  if (!adapter.stacked) return out;
  out.expert_major = adapter.stacked->b_order == BOrder::expert_major;
  for (const auto& [key, order] : adapter.stacked->b_orders)
    out.apart[{key.layer, key.projection}] = order == BOrder::expert_major;
  out.swapped = adapter.stacked->roles == Roles::swapped;
  return out;
}

Verifier packed_verifier(std::string in, int threads) {
  return [in = std::move(in), threads](const Conversion& c, const AdapterFiles& written) {
    const AdapterFiles& files = c.input.files;
    // Read again from the disk, but for what only its reader knows: another trainer's dialect, and
    // which tensors of a whole model's state are the adapter's; and for what is on no disk.
    const bool peft = files.as_on_disk() && !files.folder.empty();
    const TensorMap source =
        peft ? open_weights(in, {"adapter_model"}, files.how).tensors : files.tensors;
    const Json config = peft ? read_json_file(files.config_path()) : files.config.json;
    packed::CheckOptions options;
    options.spec = c.input.base ? &c.input.base->spec : nullptr;
    options.threads = threads;
    // Without an engine to fit, a conversion keeps every factor and every scale, but of modules
    // that it joins: the product is that of their parts.
    options.fitted = c.changes.has_value();
    options.products = options.fitted || joins_modules(c);
    const packed::Report report = packed::check_packed(
        {written.tensors, written.config.json, written.config.where, {}},
        {source, config, files.config.where, reading_of(c.input.adapter)}, options);
    check_faults(written.config.where, report.faults, c.changes);
    return Verified{report.factors, report.same_product};
  };
}

}  // namespace moelora

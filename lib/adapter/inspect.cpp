#include "lib/adapter/inspect.h"

#include <fmt/format.h>

#include <filesystem>

#include "lib/adapter/summary.h"
#include "lib/base/error.h"
#include "lib/io/weights.h"
#include "lib/base/utf8.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

uint64_t tensor_bytes(const TensorMap& tensors) {
  uint64_t sum = 0;
  for (const auto& entry : tensors) sum += entry.second.bytes();
  return sum;
}

bool has_adapter_config(const std::string& path) {
  std::error_code ignored;
  const fs::path folder =
      fs::is_directory(path, ignored) ? fs::path(path) : fs::path(path).parent_path();
  return fs::exists(folder / "adapter_config.json", ignored);
}

// Names come from the file and may hold anything; control characters must not reach a terminal.
std::string shown(std::string_view text) {
  return text.empty() ? std::string() : printable(text, 4096);
}

// ---- a file that is no adapter ---------------------------------------------------------------

std::string plain_text(const std::string& path, const Weights& weights) {
  std::vector<std::vector<std::string>> cells{{"tensor", "dtype", "shape", "bytes"}};
  for (const auto& [name, tensor] : weights.tensors)
    cells.push_back({shown(name), std::string(dtype_name(tensor.dtype())),
                     to_string(tensor.shape()), std::to_string(tensor.bytes())});
  std::string out = fmt::format("{}: {} tensors, {} in {} file{}\n", path, weights.tensors.size(),
                                size_text(tensor_bytes(weights.tensors)), weights.files.size(),
                                weights.files.size() == 1 ? "" : "s");
  for (const SafetensorsFile& file : weights.files)
    for (const auto& [key, value] : file.header.metadata)
      out += fmt::format("metadata {}: {}\n", shown(key), shown(value));
  for (const std::string& warning : weights.warnings) out += "warning: " + shown(warning) + "\n";
  return out + (cells.size() > 1 ? text_table(cells) : "");
}

Json shape_json(const Shape& shape) {
  std::vector<Json> items;
  for (int64_t extent : shape)  // as in to_string(Shape), for extents beside a zero
    items.push_back(extent >= 0 ? Json(extent)
                                : Json(static_cast<double>(static_cast<uint64_t>(extent))));
  return Json::array(std::move(items));
}

Json plain_json(const std::string& path, const Weights& weights) {
  std::vector<Json> tensors;
  for (const auto& [name, tensor] : weights.tensors)
    tensors.push_back(Json::object({{"name", name},
                                    {"dtype", dtype_name(tensor.dtype())},
                                    {"shape", shape_json(tensor.shape())},
                                    {"bytes", static_cast<int64_t>(tensor.bytes())}}));
  return Json::object({{"schema", "moelora.inspect/1"},
                       {"path", path},
                       {"kind", "tensors"},
                       {"files", static_cast<int64_t>(weights.files.size())},
                       {"bytes", static_cast<int64_t>(tensor_bytes(weights.tensors))},
                       {"warnings", Json::strings(weights.warnings)},
                       {"tensors", Json::array(std::move(tensors))}});
}

// ---- an adapter ------------------------------------------------------------------------------

struct Described {
  std::string path;
  size_t tensors = 0, files = 0;
  uint64_t bytes = 0;
  AdapterConfig config;
  std::string layout;  // "none" without expert factors, "unknown" when it cannot be told
  std::string base, problem, hint;
  int64_t experts = 0;
  std::optional<StackedForm> stacked;
  std::vector<ModuleRow> rows;
  std::vector<std::pair<std::string, std::string>> extras;  // name, kind
  std::vector<std::string> notes;
};

// The layout of an adapter that cannot be interpreted further.
std::string layout_alone(const AdapterFiles& files, const LoadOptions& options) {
  try {
    const std::vector<ExpertTensor> experts = expert_tensors(files.tensors);
    const Layout* layout =
        options.from.empty() ? detect_layout(experts) : &layout_by_id(options.from, Option::from);
    return layout == nullptr ? "none" : std::string(layout->id);
  } catch (const Error&) {
    return "unknown";
  }
}

Described describe(const std::string& path, const LoadOptions& options) {
  AdapterFiles files = open_adapter(path, {options.ignore_zip_crc});
  Described out;
  out.path = path;
  out.tensors = files.tensors.size();
  out.files = files.weights.size();
  out.bytes = tensor_bytes(files.tensors);
  out.config = files.config;
  out.notes = files.warnings;
  try {
    std::optional<BaseModel> base = base_for(files.config, options, out.notes);
    if (base) out.base = base->origin;
    const LoadedAdapter loaded =
        interpret_adapter(files, std::move(base), options.from, options.read);
    out.layout = loaded.layout == nullptr ? "none" : std::string(loaded.layout->id);
    out.experts = loaded.adapter.expert_count;
    out.stacked = loaded.adapter.stacked;
    out.rows = module_rows(loaded.adapter);
    for (const auto& [name, extra] : loaded.adapter.extras)
      out.extras.emplace_back(name, extra_kind_name(extra.kind));
    out.notes.insert(out.notes.end(), loaded.notes.begin(), loaded.notes.end());
  } catch (const Error& error) {
    out.layout = layout_alone(files, options);
    out.problem = error.what();
    out.hint = error.hint();
  }
  return out;
}

std::string adapter_text(const Described& d) {
  std::string out =
      fmt::format("{}: LoRA adapter, layout {}, {} tensors, {} in {} file{}\n", d.path, d.layout,
                  d.tensors, size_text(d.bytes), d.files, d.files == 1 ? "" : "s");
  out += fmt::format("r {}, lora_alpha {}{}", d.config.r, d.config.lora_alpha,
                     d.config.use_rslora ? ", rsLoRA" : "");
  if (!d.config.peft_version.empty()) out += fmt::format(", PEFT {}", shown(d.config.peft_version));
  if (d.experts > 0) out += fmt::format(", {} experts", d.experts);
  out += "\n";
  if (!d.base.empty()) out += fmt::format("base: {}\n", shown(d.base));
  if (d.stacked)
    out += fmt::format("stacked: lora_A on the {} side (roles {}), lora_B columns {} ({})\n",
                       d.stacked->roles == Roles::natural ? "input" : "output",
                       roles_name(d.stacked->roles), b_order_name(d.stacked->b_order),
                       d.stacked->b_order_from);
  if (!d.rows.empty()) out += "\n" + module_table(d.rows, d.layout);
  for (const auto& [name, kind] : d.extras) out += fmt::format("{}: {}\n", kind, shown(name));
  for (const std::string& note : d.notes) out += "note: " + shown(note) + "\n";
  if (!d.problem.empty()) out += "\nambiguous: " + shown(d.problem) + "\n";
  if (!d.hint.empty()) out += "hint: " + shown(d.hint) + "\n";
  return out;
}

Json row_json(const ModuleRow& row) {
  return Json::object({{"module", row.module},
                       {"layers", row.layers},
                       {"pairs", row.pairs},
                       {"rank", row.rank},
                       {"alpha", row.alpha},
                       {"scale", row.scale},
                       {"dtype", dtype_name(row.dtype)},
                       {"a", shape_json(row.a)},
                       {"b", shape_json(row.b)},
                       {"shared_a", row.shared_a},
                       {"shared_b", row.shared_b}});
}

Json adapter_json(const Described& d) {
  std::vector<Json> rows, extras;
  for (const ModuleRow& row : d.rows) rows.push_back(row_json(row));
  for (const auto& [name, kind] : d.extras)
    extras.push_back(Json::object({{"name", name}, {"kind", kind}}));
  return Json::object({{"schema", "moelora.inspect/1"},
                       {"path", d.path},
                       {"kind", "adapter"},
                       {"layout", d.layout},
                       {"base", d.base.empty() ? Json() : Json(d.base)},
                       {"files", static_cast<int64_t>(d.files)},
                       {"bytes", static_cast<int64_t>(d.bytes)},
                       {"tensors", static_cast<int64_t>(d.tensors)},
                       {"r", d.config.r},
                       {"lora_alpha", d.config.lora_alpha},
                       {"use_rslora", d.config.use_rslora},
                       {"experts", d.experts},
                       {"roles", d.stacked ? Json(roles_name(d.stacked->roles)) : Json()},
                       {"b_order", d.stacked ? Json(b_order_name(d.stacked->b_order)) : Json()},
                       {"b_order_from", d.stacked ? Json(d.stacked->b_order_from) : Json()},
                       {"modules", Json::array(std::move(rows))},
                       {"extras", Json::array(std::move(extras))},
                       {"notes", Json::strings(d.notes)},
                       {"ambiguous", d.problem.empty() ? Json() : Json(d.problem)},
                       {"hint", d.hint.empty() ? Json() : Json(d.hint)}});
}

}  // namespace

std::string inspect(const std::string& path, const LoadOptions& options, InspectFormat format) {
  if (has_adapter_config(path)) {
    const Described d = describe(path, options);
    return format == InspectFormat::text ? adapter_text(d) : adapter_json(d).dump() + "\n";
  }
  const Weights weights = open_weights(path, {"model", "adapter_model"}, {options.ignore_zip_crc});
  return format == InspectFormat::text ? plain_text(path, weights)
                                       : plain_json(path, weights).dump() + "\n";
}

}  // namespace moelora

#include "lib/adapter/inspect.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <tuple>

#include "lib/adapter/adapter_file.h"
#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/found_instead.h"
#include "lib/base/dotted_path.h"
#include "lib/base/utf8.h"
#include "lib/io/disk/look.h"
#include "lib/io/input_watch.h"
#include "lib/io/json_build.h"
#include "lib/io/weights.h"
#include "lib/model/family.h"
#include "lib/model/hub_cache.h"

namespace moelora {
namespace {

// One line of the table: all layers of a module with the same values.
using RowKey = std::tuple<bool, std::string, int64_t, double, DType, Shape, Shape, bool, bool>;
struct GatheredRow {
  ModuleRow row;
  std::set<int> layers;
};
using Rows = std::map<RowKey, GatheredRow>;

// "self_attn.q_proj" of a path, all experts' Linears under one name, and of an encoder and a
// decoder "encoder.self_attn.q_proj": their layers have the same numbers.
std::string row_name(std::string_view path) {
  const auto place = find_layer(path);
  std::string out(below_layer(path));
  if (const auto expert = find_linear_expert(out))
    out.replace(expert->begin, expert->end - expert->begin, "{e}");
  if (!place) return out;
  constexpr std::string_view kLayers = ".layers.";
  const std::string_view above = path.substr(0, place->begin);
  const std::string_view stack = leaf_of(above.substr(0, above.size() - kLayers.size()));
  return stack == "encoder" || stack == "decoder" ? std::string(stack) + "." + out : out;
}

// `experts`: the pair that these are one expert's parts of; null for a dense pair.
ModuleRow& add_pair(const std::string& path, const Tensor& a, const Tensor& b,
                    const Scaling& scaling, const ExpertPair* experts, Rows& rows) {
  const bool shared_a = experts != nullptr && experts->a.shared,
             shared_b = experts != nullptr && experts->b.shared;
  const auto place = find_layer(path);
  const std::string module = row_name(path);
  auto& [row, layers] = rows[{!place, module, scaling.rank, scaling.alpha, a.dtype(), a.shape(),
                              b.shape(), shared_a, shared_b}];
  row = {module,    {},        row.pairs + 1, scaling.rank, scaling.alpha, scaling.value(),
         a.dtype(), a.shape(), b.shape(),     shared_a,     shared_b};
  if (place) layers.insert(place->layer);
  return row;
}

// All experts of a layer; most are as the one before.
void add_experts(const std::string& path, const ExpertPair& pair, int64_t count, Rows& rows) {
  ModuleRow* last = nullptr;
  int64_t at = 0;  // of `last`
  for (int64_t e = 0; e < count; ++e) {
    if (!pair.a.has(e)) continue;
    const Tensor &a = pair.a.at(e), &b = pair.b.at(e);
    if (last != nullptr && a.dtype() == last->dtype && a.shape() == last->a &&
        b.shape() == last->b && pair.scaling_of(e) == pair.scaling_of(at)) {
      ++last->pairs;
      continue;
    }
    last = &add_pair(path, a, b, pair.scaling_of(e), &pair, rows);
    at = e;
  }
}

}  // namespace

std::vector<ModuleRow> module_rows(const Adapter& adapter) {
  Rows rows;
  for (const auto& [module, pair] : adapter.dense)
    add_pair(module, pair.a, pair.b, pair.scaling, nullptr, rows);
  for (const auto& [key, pair] : adapter.experts) {
    const std::string path =
        fmt::format("{}.{}", adapter.stem(key.layer), projection_name(key.projection));
    add_experts(path, pair, adapter.expert_count, rows);
  }
  std::vector<ModuleRow> out;
  for (auto& [key, gathered] : rows) {
    gathered.row.layers = ranges({gathered.layers.begin(), gathered.layers.end()});
    out.push_back(std::move(gathered.row));
  }
  return out;
}

std::string module_table(const std::vector<ModuleRow>& rows, std::string_view layout) {
  std::vector<std::vector<std::string>> cells{
      {"module", "layers", "layout", "pairs", "rank", "alpha", "scale", "dtype", "A", "B"}};
  for (const ModuleRow& row : rows) {
    const bool expert = row.module.find("experts.") != std::string::npos &&
                        row.module.find("shared_experts.") == std::string::npos &&
                        row.module.find("experts.expert_{e}") == std::string::npos;
    cells.push_back({printable(row.module, 4096), row.layers.empty() ? "-" : row.layers,
                     expert ? std::string(layout) : "dense", std::to_string(row.pairs),
                     std::to_string(row.rank), fmt::format("{}", row.alpha),
                     fmt::format("{}", row.scale), std::string(dtype_name(row.dtype)),
                     to_string(row.a) + (row.shared_a ? " shared" : ""),
                     to_string(row.b) + (row.shared_b ? " shared" : "")});
  }
  return text_table(std::move(cells));
}

namespace {

namespace fs = std::filesystem;

uint64_t tensor_bytes(const TensorMap& tensors) {
  uint64_t sum = 0;
  for (const auto& entry : tensors) sum += entry.second.bytes();
  return sum;
}

std::vector<TensorInfo> infos(const TensorMap& tensors) {
  std::vector<TensorInfo> out;
  for (const auto& [name, tensor] : tensors)
    out.push_back({name, tensor.dtype(), tensor.shape(), tensor.bytes()});
  return out;
}

bool has_adapter_config(const std::string& path) {
  const fs::path folder = is_folder(path) ? fs::path(path) : fs::path(path).parent_path();
  return !is_absent(folder / "adapter_config.json");
}

// Whether the weights, or another file beside them, say what adapter_config.json does elsewhere.
bool is_adapter_without_config(const std::string& path, const LoadOptions& options) try {
  return open_adapter(path, options.input(), options.from).dialect != nullptr;
} catch (const MachineError&) {
  throw;
} catch (const Error&) {
  return false;
}

// Names come from the file and may hold anything; control characters must not reach a terminal.
std::string shown(std::string_view text) {
  return text.empty() ? std::string() : printable(text, 4096);
}

// ---- a file that holds no adapter -------------------------------------------------------------

std::string plain_text(const Inspection& d) {
  std::vector<std::vector<std::string>> cells{{"tensor", "dtype", "shape", "bytes"}};
  for (const TensorInfo& t : d.tensors)
    cells.push_back({shown(t.name), std::string(dtype_name(t.dtype)), to_string(t.shape),
                     std::to_string(t.bytes)});
  std::string out =
      fmt::format("{}: {} tensors, {} in {} file{}\n", printable(d.path), d.tensors.size(),
                  size_text(d.bytes), d.files, d.files == 1 ? "" : "s");
  for (const auto& [key, value] : d.metadata)
    out += fmt::format("metadata {}: {}\n", shown(key), shown(value));
  for (const std::string& warning : d.notes) out += "warning: " + shown(warning) + "\n";
  return out + (cells.size() > 1 ? text_table(std::move(cells)) : "");
}

Json shape_json(const Shape& shape) {
  return json_list(shape, [](int64_t extent) {  // as in to_string(Shape), for extents beside a zero
    return extent >= 0 ? Json(extent) : Json(static_cast<double>(static_cast<uint64_t>(extent)));
  });
}

Json tensor_json(const TensorInfo& t) {
  return Json::object({{"name", t.name},
                       {"dtype", dtype_name(t.dtype)},
                       {"shape", shape_json(t.shape)},
                       {"bytes", json_count(t.bytes)}});
}

Json plain_json(const Inspection& d) {
  return Json::object({{"schema", "moelora.inspect/1"},
                       {"path", d.path},
                       {"kind", "tensors"},
                       {"files", json_count(d.files)},
                       {"bytes", json_count(d.bytes)},
                       {"warnings", Json::strings(d.notes)},
                       {"tensors", json_list(d.tensors, tensor_json)}});
}

// ---- an adapter ------------------------------------------------------------------------------

// The layout of an adapter that cannot be interpreted further.
std::string layout_alone(const AdapterFiles& files, const LoadOptions& options) {
  try {
    const std::vector<ExpertTensor> experts = expert_tensors(files.tensors);
    const Layout* layout = options.from.empty() || files.dialect != nullptr
                               ? detect_layout(experts)
                               : &layout_by_id(options.from, Option::from);
    return layout == nullptr ? "none" : std::string(layout->id);
  } catch (const Error&) {
    return "unknown";
  }
}

// A base of a family that is not known says nothing of an adapter; without one much is known.
std::optional<BaseModel> base_to_inspect(const AdapterConfig& config, const LoadOptions& options,
                                         std::vector<std::string>& notes) try {
  return base_for(config, options, notes);
} catch (const UnknownFamily& error) {
  notes.push_back(fmt::format("read without a base model: {}", error.what()));
  return std::nullopt;
}

Inspection inspect_adapter(const std::string& path, const LoadOptions& options) {
  AdapterFiles files = open_adapter(path, options.input(), options.from);
  Inspection out;
  out.path = path;
  out.is_adapter = true;
  out.tensors = infos(files.tensors);
  out.files = files.weights.size();
  out.bytes = tensor_bytes(files.tensors);
  out.r = files.config.r;
  out.lora_alpha = files.config.lora_alpha;
  out.use_rslora = files.config.use_rslora;
  out.peft_version = files.config.peft_version;
  if (files.dialect != nullptr) out.dialect = files.dialect->id;
  out.notes = files.warnings;
  options.job.check();
  std::optional<BaseModel> base;
  const bool is_named = !options.base.empty();  // then it must be readable
  if (is_named) base = base_to_inspect(files.config, options, out.notes);
  try {
    if (!is_named) base = base_to_inspect(files.config, options, out.notes);
    if (base) out.base = base->origin;
    translate(files, base ? &base->spec : nullptr);
    const Interpretation loaded =
        interpret_files(files, base ? &base->spec : nullptr, options.from, options.read);
    out.layout = loaded.layout == nullptr ? "none" : std::string(loaded.layout->id);
    out.experts = loaded.adapter.expert_count;
    out.stacked = loaded.adapter.stacked;
    out.modules = module_rows(loaded.adapter);
    for (const auto& [name, extra] : loaded.adapter.extras)
      out.extras.emplace_back(name, extra_kind_name(extra.kind));
    out.notes.insert(out.notes.end(), files.notes.begin(), files.notes.end());
    out.notes.insert(out.notes.end(), loaded.notes.begin(), loaded.notes.end());
  } catch (const MachineError&) {
    throw;
  } catch (const Error& error) {
    out.layout = layout_alone(files, options);
    out.problem = error.what();
    out.hint = error.hint();
  }
  return out;
}

// "rank-major", or where parameters differ "rank-major (gate_up_proj), expert-major (down_proj)".
std::string b_order_text(const StackedForm& stacked) {
  if (stacked.b_orders.empty()) return std::string(b_order_name(stacked.b_order));
  std::map<BOrder, std::map<Projection, std::vector<int>>> found;
  for (const auto& [key, order] : stacked.b_orders)
    found[order][key.projection].push_back(key.layer);
  std::vector<std::string> out;
  for (const auto& [order, projections] : found) {
    std::vector<std::string> names;
    for (const auto& [projection, layers] : projections) {
      const bool both = std::all_of(found.begin(), found.end(), [p = projection](const auto& o) {
        return o.second.count(p) > 0;
      });
      names.push_back(std::string(projection_name(projection)) +
                      (both ? " in layers " + ranges(layers) : ""));
    }
    out.push_back(fmt::format("{} ({})", b_order_name(order), fmt::join(names, ", ")));
  }
  return fmt::format("{}", fmt::join(out, ", "));
}

Json b_order_json(const StackedForm& stacked) {
  return stacked.b_orders.empty() ? Json(b_order_name(stacked.b_order)) : Json("mixed");
}

std::string adapter_text(const Inspection& d) {
  std::string out =
      fmt::format("{}: LoRA adapter, {}layout {}, {} tensors, {} in {} file{}\n", printable(d.path),
                  d.dialect.empty() ? "" : fmt::format("dialect {}, ", d.dialect), d.layout,
                  d.tensors.size(), size_text(d.bytes), d.files, d.files == 1 ? "" : "s");
  out += fmt::format("r {}, lora_alpha {}{}", d.r, d.lora_alpha, d.use_rslora ? ", rsLoRA" : "");
  if (!d.peft_version.empty()) out += fmt::format(", PEFT {}", shown(d.peft_version));
  if (d.experts > 0) out += fmt::format(", {} experts", d.experts);
  out += "\n";
  if (!d.base.empty()) out += fmt::format("base: {}\n", shown(d.base));
  if (d.stacked)
    out += fmt::format("stacked: lora_A on the {} side (roles {}), lora_B columns {} ({})\n",
                       d.stacked->roles == Roles::natural ? "input" : "output",
                       roles_name(d.stacked->roles), b_order_text(*d.stacked),
                       d.stacked->b_order_from);
  if (!d.modules.empty()) out += "\n" + module_table(d.modules, d.layout);
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

Json extra_json(const std::pair<std::string, std::string>& extra) {
  return Json::object({{"name", extra.first}, {"kind", extra.second}});
}

Json adapter_json(const Inspection& d) {
  return Json::object({{"schema", "moelora.inspect/1"},
                       {"path", d.path},
                       {"kind", "adapter"},
                       {"dialect", or_null(d.dialect)},
                       {"layout", d.layout},
                       {"base", or_null(d.base)},
                       {"files", json_count(d.files)},
                       {"bytes", json_count(d.bytes)},
                       {"tensors", json_count(d.tensors.size())},
                       {"r", d.r},
                       {"lora_alpha", d.lora_alpha},
                       {"use_rslora", d.use_rslora},
                       {"experts", d.experts},
                       {"roles", d.stacked ? Json(roles_name(d.stacked->roles)) : Json()},
                       {"b_order", d.stacked ? b_order_json(*d.stacked) : Json()},
                       {"b_order_from", d.stacked ? Json(d.stacked->b_order_from) : Json()},
                       {"modules", json_list(d.modules, row_json)},
                       {"extras", json_list(d.extras, extra_json)},
                       {"notes", Json::strings(d.notes)},
                       {"ambiguous", or_null(d.problem)},
                       {"hint", or_null(d.hint)}});
}

Inspection inspect_tensors(const std::string& path, const LoadOptions& options) {
  const Weights weights = open_weights(path, {"model", "adapter_model"}, options.input());
  Inspection out;
  out.path = path;
  out.files = weights.files.size();
  out.bytes = tensor_bytes(weights.tensors);
  out.tensors = infos(weights.tensors);
  for (const SafetensorsFile& file : weights.files)
    out.metadata.insert(out.metadata.end(), file.header.metadata.begin(),
                        file.header.metadata.end());
  out.notes = weights.warnings;
  return out;
}

// A checkpoint; of a folder without weights, what it holds in their place.
Inspection inspect_other(const std::string& path, const LoadOptions& options) {
  try {
    return inspect_tensors(path, options);
  } catch (const MachineError&) {
    throw;
  } catch (const Error&) {
    if (!is_folder(path)) throw;
    const auto found = instead_in_folder(path);
    if (!found) throw;
    throw Error(path, found->what, found->advice);
  }
}

Inspection inspect_any(const std::string& path, const LoadOptions& options) {
  std::string tried;
  if (is_absent(path)) {
    if (find_hub_snapshot(path, tried)) return inspect_adapter(path, options);
    const FoundInstead found = instead_of_path(path);
    throw Error(path, found.what, found.advice);
  }
  const bool adapter = has_adapter_config(path) || is_adapter_without_config(path, options);
  return adapter ? inspect_adapter(path, options) : inspect_other(path, options);
}

}  // namespace

Inspection inspect(const std::string& path, const LoadOptions& options) {
  options.job.check();
  const InputWatch watch;
  Inspection out = inspect_any(path, options);
  watch.check();
  return out;
}

std::string inspection_text(const Inspection& inspection) {
  return inspection.is_adapter ? adapter_text(inspection) : plain_text(inspection);
}

std::string inspection_json(const Inspection& inspection) {
  const Json json = inspection.is_adapter ? adapter_json(inspection) : plain_json(inspection);
  return json.dump() + "\n";
}

}  // namespace moelora

#include "lib/diff/inspection_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "lib/adapter/adapter_file.h"
#include "lib/base/page/bars.h"
#include "lib/base/page/cells.h"
#include "lib/base/page/markup.h"
#include "lib/base/page/plot.h"
#include "lib/base/utf8.h"
#include "lib/diff/weight_parts.h"
#include "lib/io/input_watch.h"

namespace moelora {
namespace {

using page::Cells;
using page::HeatMap;

constexpr size_t kMostTensors = 200, kMostListed = 40;

// ---- heat maps ----------------------------------------------------------------------------------

HeatMap norms_by_module(const std::vector<DeltaSize>& sizes) {
  Cells cells;
  for (const DeltaSize& d : sizes) cells.add(0, place_name(d.key), place_layer(d.key), d.norm);
  return cells.map(Cells::Show::root_of_squares)
      .titled("Norm by module and layer", "module", "layer",
              "The norm of the delta; of routed experts of all together.", "0: adds nothing");
}

HeatMap norms_by_expert(const std::vector<DeltaSize>& sizes) {
  Cells cells;
  for (const DeltaSize& d : sizes)
    if (d.key.expert >= 0) cells.add(d.key.layer, d.key.expert, d.norm);
  return cells.map(Cells::Show::root_of_squares)
      .titled("Norm by layer and routed expert", "layer", "expert",
              "The norm of all projections of the expert together.", "0: adds nothing");
}

HeatMap rank_use(const std::vector<DeltaSize>& sizes) {
  Cells cells;
  for (const DeltaSize& d : sizes)
    if (d.rank > 0)
      cells.add(0, place_name(d.key), place_layer(d.key),
                d.effective_rank / static_cast<double>(d.rank));
  HeatMap out = cells.map(Cells::Show::mean)
                    .titled("Use of the rank", "module", "layer",
                            "Effective rank over rank, from 0 to 1; of routed experts the mean.",
                            "0: adds nothing");
  out.full = 1;
  return out;
}

// ---- dead experts -------------------------------------------------------------------------------

// Experts that add nothing in any projection, by layer.
std::map<int, std::vector<int>> dead_experts(const Inspection& d,
                                             const std::vector<DeltaSize>& sizes) {
  std::map<int, std::set<int64_t>> alive;
  for (const DeltaSize& size : sizes)
    if (size.key.expert >= 0) {
      std::set<int64_t>& of_layer = alive[size.key.layer];
      if (!(size.norm == 0)) of_layer.insert(size.key.expert);
    }
  std::map<int, std::vector<int>> out;
  for (const auto& [layer, experts] : alive)
    for (int64_t e = 0; e < d.experts; ++e)
      if (experts.count(e) == 0) out[layer].push_back(static_cast<int>(e));
  return out;
}

std::string dead_part(const Inspection& d, const std::vector<DeltaSize>& sizes) {
  if (d.experts == 0) return "";
  const auto dead = dead_experts(d, sizes);
  std::string out = page::heading("Dead experts");
  if (dead.empty())
    return out + page::paragraph("None: every expert of every adapted layer adds something.");
  page::Table table({"layer", "dead", "of", "experts"}, 3);
  for (const auto& [layer, experts] : dead)
    table.row({std::to_string(layer), std::to_string(experts.size()), std::to_string(d.experts),
               page::text(ranges(experts))});
  return out + page::paragraph("Without factors, or with a delta of exactly 0.") + table.finish();
}

// ---- the page -----------------------------------------------------------------------------------

std::string facts(const Inspection& d) {
  std::string line =
      fmt::format("LoRA adapter, {}layout {}, {} tensors, {} in {} file{}",
                  d.dialect.empty() ? "" : fmt::format("dialect {}, ", d.dialect), d.layout,
                  d.tensors.size(), size_text(d.bytes), d.files, d.files == 1 ? "" : "s");
  std::string more =
      fmt::format("r {}, lora_alpha {}{}", d.r, d.lora_alpha, d.use_rslora ? ", rsLoRA" : "");
  if (!d.peft_version.empty()) more += ", PEFT " + d.peft_version;
  if (d.experts > 0) more += fmt::format(", {} experts", d.experts);
  std::string out = page::element("p", "", page::code(d.path)) + "\n" +
                    page::paragraph(line, "verdict") + page::paragraph(more);
  if (!d.base.empty()) out += page::paragraph("base: " + d.base);
  if (!d.problem.empty()) out += page::paragraph("ambiguous: " + d.problem, "bad");
  if (!d.hint.empty()) out += page::paragraph("hint: " + d.hint);
  return out;
}

std::string modules_part(const Inspection& d) {
  if (d.modules.empty()) return "";
  page::Table table({"module", "layers", "pairs", "rank", "alpha", "scale", "dtype", "A", "B"});
  for (size_t i = 0; i < std::min(d.modules.size(), page::kMostRows); ++i) {
    const ModuleRow& row = d.modules[i];
    table.row({page::code(row.module), row.layers.empty() ? "-" : row.layers,
               std::to_string(row.pairs), std::to_string(row.rank), fmt::format("{}", row.alpha),
               page::number(row.scale), std::string(dtype_name(row.dtype)),
               to_string(row.a) + (row.shared_a ? " shared" : ""),
               to_string(row.b) + (row.shared_b ? " shared" : "")});
  }
  std::string out = page::heading("Layout") + table.finish();
  if (d.modules.size() > page::kMostRows)
    out += page::paragraph(fmt::format("and {} more rows", d.modules.size() - page::kMostRows),
                           "soft");
  return out;
}

std::string pictures(const Inspection& d, const InspectedValues& values) {
  if (!values.problem.empty())
    return page::paragraph("The values were not measured: " + values.problem, "warn");
  if (values.sizes.empty()) return "";
  std::vector<double> norms, ranks;
  for (const DeltaSize& size : values.sizes) {
    norms.push_back(size.norm);
    ranks.push_back(size.effective_rank);
  }
  return heat_map_figure(norms_by_module(values.sizes)) +
         heat_map_figure(norms_by_expert(values.sizes)) + heat_map_figure(rank_use(values.sizes)) +
         page::element(
             "div", "charts",
             page::histogram("Norms of single deltas", "norm, log", "pairs", norms) +
                 page::histogram("Effective ranks", "effective rank, log", "pairs", ranks)) +
         "\n" + dead_part(d, values.sizes);
}

std::string adapter_body(const Inspection& d, const InspectedValues& values) {
  std::vector<std::string> extras;
  for (const auto& [name, kind] : d.extras) extras.push_back(kind + ": " + name);
  return facts(d) + pictures(d, values) + modules_part(d) +
         page::listed("Other tensors", extras, kMostListed) +
         page::listed("Notes", d.notes, kMostListed) +
         page::terms({{"delta", "what the adapter adds to a weight: scale * lora_B lora_A"},
                      {"norm",
                       "the Frobenius norm of a delta; of several the root of the sum of "
                       "squares"},
                      {"effective rank",
                       "(sum s^2)^2 / sum s^4 of the singular values s: 1 where "
                       "one direction holds all, r where all r are equal"},
                      {"scale", "alpha over rank, or over its root with rsLoRA"}});
}

std::string tensors_body(const Inspection& d) {
  std::string out = page::element("p", "", page::code(d.path)) + "\n";
  out += page::paragraph(fmt::format("{} tensors, {} in {} file{}", d.tensors.size(),
                                     size_text(d.bytes), d.files, d.files == 1 ? "" : "s"),
                         "verdict");
  std::map<std::string_view, uint64_t> bytes;
  for (const TensorInfo& t : d.tensors) bytes[dtype_name(t.dtype)] += t.bytes;
  page::BarChart chart{"Bytes by type", "", {}};
  for (const auto& [dtype, sum] : bytes)
    chart.bars.push_back({std::string(dtype), static_cast<double>(sum), size_text(sum)});
  page::Table table({"tensor", "dtype", "shape", "bytes"});
  for (size_t i = 0; i < std::min(d.tensors.size(), kMostTensors); ++i) {
    const TensorInfo& t = d.tensors[i];
    table.row({page::code(t.name), std::string(dtype_name(t.dtype)), to_string(t.shape),
               std::to_string(t.bytes)});
  }
  out +=
      page::element("div", "charts", bar_figure(chart)) + page::heading("Tensors") + table.finish();
  out += page::and_more(d.tensors.size(), kMostTensors);
  std::vector<std::string> metadata;
  for (const auto& [key, value] : d.metadata) metadata.push_back(key + ": " + value);
  return out + page::listed("Metadata", metadata, kMostListed) +
         page::listed("Warnings", d.notes, kMostListed);
}

}  // namespace

InspectedValues inspect_values(const std::string& path, const LoadOptions& options, int threads) {
  const InputWatch watch;
  InspectedValues out;
  try {
    out.sizes = delta_sizes(deltas_of(load_adapter(path, options).adapter), {threads, options.job});
  } catch (const MachineError&) {
    throw;
  } catch (const Cancelled&) {
    throw;
  } catch (const Error& error) {
    out.problem = error.what();
  }
  watch.check();
  return out;
}

std::string inspection_html(const Inspection& d, const InspectedValues& values,
                            const PageOrigin& origin) {
  return d.is_adapter ? page::whole_page("What is in this adapter", origin, adapter_body(d, values))
                      : page::whole_page("What is in this checkpoint", origin, tensors_body(d));
}

std::string inspection_blocks(const InspectedValues& values, size_t width) {
  if (values.sizes.empty()) return "";
  const HeatMap experts = norms_by_expert(values.sizes);
  return heat_map_blocks(norms_by_module(values.sizes), width) +
         (experts.values.empty() ? "" : "\n" + heat_map_blocks(experts, width)) + "\n" +
         heat_map_blocks(rank_use(values.sizes), width);
}

}  // namespace moelora

#include "lib/adapter/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "lib/base/dotted_path.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

struct Place {
  int layer = -1;
  std::string module;  // below the layer
};

Place place(const std::string& module) {
  const auto found = find_layer(module);
  return found ? Place{found->layer, module.substr(found->end + 1)} : Place{-1, module};
}

// Rows with the same key are one line of the table; their layers are gathered.
class Rows {
 public:
  void add(int layer, ModuleRow row) {
    const Key key{layer < 0, row.module, row.rank,     row.alpha,   row.dtype,
                  row.a,     row.b,      row.shared_a, row.shared_b};
    Entry& entry = entries_[key];
    const int64_t pairs = entry.row.pairs + row.pairs;
    entry.row = std::move(row);
    entry.row.pairs = pairs;
    if (layer >= 0) entry.layers.insert(layer);
  }

  std::vector<ModuleRow> take() {
    std::vector<ModuleRow> out;
    for (auto& item : entries_) {
      Entry& entry = item.second;
      entry.row.layers = ranges({entry.layers.begin(), entry.layers.end()});
      out.push_back(std::move(entry.row));
    }
    return out;
  }

 private:
  using Key = std::tuple<bool, std::string, int64_t, double, DType, Shape, Shape, bool, bool>;
  struct Entry {
    ModuleRow row;
    std::set<int> layers;
  };
  std::map<Key, Entry> entries_;
};

ModuleRow row_of(std::string module, const Tensor& a, const Tensor& b, const Scaling& scaling) {
  ModuleRow row;
  row.module = std::move(module);
  row.pairs = 1;
  row.rank = scaling.rank;
  row.alpha = scaling.alpha;
  row.scale = scaling.value();
  row.dtype = a.dtype();
  row.a = a.shape();
  row.b = b.shape();
  return row;
}

void add_experts(const Adapter& adapter, const ExpertKey& key, const ExpertPair& pair, Rows& rows) {
  const std::string stem = place(adapter.stem(key.layer)).module;
  for (int64_t e = 0; e < adapter.expert_count; ++e) {
    if (!pair.a.has(e)) continue;
    ModuleRow row = row_of(fmt::format("{}.{}", stem, projection_name(key.projection)),
                           pair.a.at(e), pair.b.at(e), pair.scaling_of(e));
    row.shared_a = pair.a.shared;
    row.shared_b = pair.b.shared;
    rows.add(key.layer, std::move(row));
  }
}

}  // namespace

std::vector<ModuleRow> module_rows(const Adapter& adapter) {
  Rows rows;
  for (const auto& [module, pair] : adapter.dense) {
    const Place at = place(module);
    rows.add(at.layer, row_of(at.module, pair.a, pair.b, pair.scaling));
  }
  for (const auto& [key, pair] : adapter.experts) add_experts(adapter, key, pair, rows);
  return rows.take();
}

std::string ranges(const std::vector<int>& sorted) {
  std::string out;
  for (size_t i = 0; i < sorted.size();) {
    size_t end = i + 1;
    while (end < sorted.size() && sorted[end] == sorted[end - 1] + 1) ++end;
    out += fmt::format("{}{}", out.empty() ? "" : ",", sorted[i]);
    if (end - i > 1) out += fmt::format("-{}", sorted[end - 1]);
    i = end;
  }
  return out;
}

std::string text_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> width;
  for (const auto& row : rows)
    for (size_t c = 0; c < row.size(); ++c) {
      if (c >= width.size()) width.push_back(0);
      width[c] = std::max(width[c], row[c].size());
    }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) line += fmt::format("{:<{}}  ", row[c], width[c]);
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string module_table(const std::vector<ModuleRow>& rows, std::string_view layout) {
  std::vector<std::vector<std::string>> cells{
      {"module", "layers", "layout", "pairs", "rank", "alpha", "scale", "dtype", "A", "B"}};
  for (const ModuleRow& row : rows) {
    const bool expert = row.module.find("experts.") != std::string::npos &&
                        row.module.find("shared_experts.") == std::string::npos;
    cells.push_back({printable(row.module, 4096), row.layers.empty() ? "-" : row.layers,
                     expert ? std::string(layout) : "dense", std::to_string(row.pairs),
                     std::to_string(row.rank), fmt::format("{}", row.alpha),
                     fmt::format("{}", row.scale), std::string(dtype_name(row.dtype)),
                     to_string(row.a) + (row.shared_a ? " shared" : ""),
                     to_string(row.b) + (row.shared_b ? " shared" : "")});
  }
  return text_table(cells);
}

std::string size_text(uint64_t bytes) {
  if (bytes < 1000) return fmt::format("{} bytes", bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* next : {"kB", "MB", "GB", "TB"}) {
    unit = next;
    value /= 1000;
    if (value < 1000) break;
  }
  return fmt::format("{:.3g} {}", value, unit);
}

}  // namespace moelora

#include "lib/io/conversion_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <vector>

#include "lib/base/parallel.h"
#include "lib/base/version.h"
#include "lib/io/json_value.h"

namespace moelora {
namespace {

// The input tensors of a recipe and what changes their elements on the way.
struct Origin {
  std::set<std::string> inputs, changes;
};

Origin origin(const Tensor& tensor) {
  Origin out;
  const Source* last = nullptr;
  for (const Piece& piece : tensor.pieces()) {
    if (piece.source.get() == last) continue;
    last = piece.source.get();
    for (const std::string& name : last->inputs()) out.inputs.insert(name);
    if (const std::string change = last->change(); !change.empty()) out.changes.insert(change);
  }
  return out;
}

std::string joined(const std::set<std::string>& items, std::string_view separator) {
  std::string out;
  for (const std::string& item : items)
    out += (out.empty() ? "" : std::string(separator)) + json_string(item);
  return out;
}

// A change is a list of steps: "cast BF16 to F32 (exact), scaled by 0.5 (exact)".
bool exact(const std::string& change) {
  for (size_t at = 0; at < change.size();) {
    const size_t end = std::min(change.find(", ", at), change.size());
    if (!std::string_view(change).substr(at, end - at).ends_with("(exact)")) return false;
    at = end + 2;
  }
  return true;
}

bool exact(const std::set<std::string>& changes) {
  return std::all_of(changes.begin(), changes.end(),
                     [](const std::string& change) { return exact(change); });
}

void add_line(const std::string& name, const Tensor& tensor, const std::string& digest,
              std::string& out) {
  const Origin from = origin(tensor);
  const auto at = std::back_inserter(out);
  fmt::format_to(at, "    {}: {{\"sources\": [{}], \"exact\": {}", json_string(name),
                 joined(from.inputs, ", "), exact(from.changes));
  if (!from.changes.empty()) fmt::format_to(at, ", \"changes\": [{}]", joined(from.changes, ", "));
  if (!digest.empty()) fmt::format_to(at, ", \"xxh3_128\": \"{}\"", digest);
  out += '}';
}

}  // namespace

std::string report_text(const Json::Members& head, const TensorMap& tensors,
                        const WrittenWeights& written, int threads) {
  std::string out = fmt::format("{{\n  \"schema\": \"moelora.conversion/1\",\n  \"version\": {},\n",
                                json_string(version()));
  for (const auto& [key, value] : head)
    out += fmt::format("  {}: {},\n", json_string(key), value.dump(-1));
  std::vector<const TensorMap::value_type*> items;
  std::vector<const std::string*> digests;  // both maps are in the order of the names
  static const std::string kNone;
  for (auto at = written.tensors.begin(); const auto& item : tensors) {
    while (at != written.tensors.end() && at->first < item.first) ++at;
    const bool found = at != written.tensors.end() && at->first == item.first;
    items.push_back(&item);
    digests.push_back(found ? &at->second.digest : &kNone);
  }
  out += "  \"tensors\": {";
  out += parallel_text(
      std::ssize(items), threads, [&](int64_t first, int64_t last, std::string& text) {
        for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
          text += i == 0 ? "\n" : ",\n";
          add_line(items[i]->first, items[i]->second, *digests[i], text);
        }
      });
  return out + "\n  }\n}\n";
}

}  // namespace moelora

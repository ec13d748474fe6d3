#include "lib/adapter/conversion_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "lib/base/version.h"

namespace moelora {
namespace {

std::string quoted(const std::string& text) { return Json(text).dump(-1); }

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
    out += (out.empty() ? "" : std::string(separator)) + quoted(item);
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

std::string tensor_line(const std::string& name, const Tensor& tensor,
                        const WrittenWeights& written) {
  const Origin from = origin(tensor);
  std::string line = fmt::format("    {}: {{\"sources\": [{}], \"exact\": {}", quoted(name),
                                 joined(from.inputs, ", "), exact(from.changes));
  if (!from.changes.empty()) line += fmt::format(", \"changes\": [{}]", joined(from.changes, ", "));
  const auto found = written.tensors.find(name);
  if (found != written.tensors.end() && !found->second.digest.empty())
    line += fmt::format(", \"xxh3_128\": \"{}\"", found->second.digest);
  return line + "}";
}

}  // namespace

std::string report_text(const Json::Members& head, const TensorMap& tensors,
                        const WrittenWeights& written) {
  std::string out = fmt::format("{{\n  \"schema\": \"moelora.conversion/1\",\n  \"version\": {},\n",
                                quoted(std::string(version())));
  for (const auto& [key, value] : head)
    out += fmt::format("  {}: {},\n", quoted(key), value.dump(-1));
  out += "  \"tensors\": {";
  bool first = true;
  for (const auto& [name, tensor] : tensors) {
    out += first ? "\n" : ",\n";
    first = false;
    out += tensor_line(name, tensor, written);
  }
  return out + "\n  }\n}\n";
}

}  // namespace moelora

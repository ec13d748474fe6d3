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

bool exact(const std::set<std::string>& changes) {
  return std::all_of(changes.begin(), changes.end(), [](const std::string& change) {
    return change.find("(exact)") != std::string::npos;
  });
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

std::string conversion_report(const Conversion& c, const WrittenWeights& written) {
  std::string out = fmt::format("{{\n  \"schema\": \"moelora.conversion/1\",\n  \"version\": {},\n",
                                quoted(std::string(version())));
  out += fmt::format("  \"from\": {},\n",
                     c.input.layout != nullptr ? quoted(std::string(c.input.layout->id)) : "null");
  out += fmt::format("  \"to\": {},\n", c.to != nullptr ? quoted(std::string(c.to->id)) : "null");
  out += fmt::format("  \"notes\": {},\n", Json::strings(c.notes).dump(-1));
  out += "  \"tensors\": {";
  bool first = true;
  for (const auto& [name, tensor] : c.tensors) {
    out += first ? "\n" : ",\n";
    first = false;
    out += tensor_line(name, tensor, written);
  }
  return out + "\n  }\n}\n";
}

}  // namespace moelora

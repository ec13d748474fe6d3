#include "tests/engine/sglang_compare.h"

#include <fmt/format.h>

#include <fstream>

namespace moelora::test {

using sglang::Server;

namespace {

NameSet names(const Json* list) {
  NameSet out;
  if (list != nullptr)
    for (const Json& item : list->items()) out.insert(item.as_string());
  return out;
}

Shape without_slots(const Json& list) {
  Shape out;
  for (size_t i = 1; i < list.items().size(); ++i) out.push_back(list.items()[i].as_int());
  return out;
}

const sglang::EmbeddingBuffer* find_embedding(const sglang::Pool& pool, const std::string& key) {
  for (const auto& buffer : pool.embeddings)
    for (const char* side : {"A", "B"})
      if (key == fmt::format("{}_{}_buffer.{}", buffer.group, side, buffer.name)) return &buffer;
  return nullptr;
}

std::string embedding_difference(const sglang::Pool& pool, const std::string& key,
                                 const Json& shape) {
  const auto* buffer = find_embedding(pool, key);
  if (buffer == nullptr) return "no " + key;
  const bool is_a = key.find("_A_buffer") != std::string::npos;
  const Shape& ours = is_a ? buffer->a : buffer->b;
  return ours == without_slots(shape)
             ? ""
             : fmt::format("{} is {}, not {}", key, to_string(ours), shape.dump(-1));
}

std::string layer_difference(const sglang::Pool& pool, const std::string& key, const Json& shapes) {
  const std::string name = key.substr(0, key.size() - 2);
  const sglang::Buffer* buffer = pool.find(name);
  if (buffer == nullptr) return "no " + key;
  const auto& ours = key.ends_with(".A") ? buffer->a : buffer->b;
  if (ours.size() != shapes.items().size()) return key + " in other layers";
  for (size_t i = 0; i < ours.size(); ++i)
    if (ours[i] != without_slots(shapes.items()[i]))
      return fmt::format("{} of layer {} is {}, not {}", key, i, to_string(ours[i]),
                         shapes.items()[i].dump(-1));
  return "";
}

// Buffers, shape by shape; "" for equal.
std::string buffer_difference(const Server& server, size_t rank, const Json* buffers) {
  if (buffers == nullptr) return "";
  const sglang::Pool& pool = server.pools()[rank];
  for (const auto& [key, shapes] : buffers->members()) {
    const bool embedding = key.find("_buffer.") != std::string::npos;
    const std::string difference =
        embedding ? embedding_difference(pool, key, shapes) : layer_difference(pool, key, shapes);
    if (!difference.empty()) return difference;
  }
  const size_t ours = 2 * (pool.buffers.size() + pool.embeddings.size());
  return ours == buffers->members().size()
             ? ""
             : fmt::format("{} buffers, not {}", ours, buffers->members().size());
}

std::string owned_difference(const Server& server, const Json* owned) {
  if (owned == nullptr) return "";
  for (const auto& [layer, list] : owned->members()) {
    NameSet ours;
    for (const auto& wrapped : server.wrapping().layers[std::stoul(layer)])
      ours.insert(wrapped.buffer);
    if (ours != names(&list))
      return fmt::format("layer {} owns {}, not {}", layer, py_list(ours), list.dump(-1));
  }
  return "";
}

std::string normalised(std::string text, const std::string& prefix) {
  if (text.starts_with(prefix)) text.erase(0, prefix.size());
  return with_sorted_sets(text);
}

std::set<std::string> read_disagreements() {
  std::set<std::string> out;
  std::ifstream file(std::string(MOELORA_SOURCE_DIR "/tests/engine/sglang_disagreements.txt"));
  for (std::string line; std::getline(file, line);)
    if (!line.empty() && line[0] != '#') out.insert(line.substr(0, line.find(": ")));
  return out;
}

}  // namespace

std::string state_difference(const Server& server, size_t rank, const Json& record) {
  if (const Json* targets = record.find("target_modules"))
    if (names(targets) != server.targets())
      return fmt::format("targets {}, not {}", py_list(server.targets()), targets->dump(-1));
  if (const Json* most = record.find("max_lora_rank"))
    if (most->as_int() != server.max_lora_rank())
      return fmt::format("rank {}, not {}", server.max_lora_rank(), most->as_int());
  if (const Json* shared = record.find("shared_outer"))
    if (shared->as_bool() != server.shared_outer()) return "shared outer differs";
  const std::string difference = buffer_difference(server, rank, record.find("buffers"));
  return difference.empty() ? owned_difference(server, record.find("owned")) : difference;
}

std::string refusal_difference(const Server& server, const OracleRecord& record) {
  const Refusal* ours = server.first_refusal();
  const std::string stage = record.text("stage");
  if (stage.empty()) return ours == nullptr ? "" : "refused: " + refusal_text(*ours);
  if (ours == nullptr) return fmt::format("served, not {} {}", stage, record.text("text"));
  const std::string prefix = "load_lora_adapter: ";
  const bool dynamic = record.text("text").starts_with(prefix);
  const std::string type =
      dynamic ? record.json.find("inner")->items()[0].as_string() : record.text("type");
  if (ours->stage != stage) return fmt::format("stage {}, not {}", ours->stage, stage);
  if (ours->type != type) return fmt::format("type {}, not {}", ours->type, type);
  if (ours->first_use != (stage == "load to buffer")) return "first use differs";
  const std::string& theirs = record.text("text");
  return same_refusal_text(ours->text, theirs)
             ? ""
             : fmt::format("says {}\n    not {}", ours->text, theirs);
}

bool same_refusal_text(const std::string& ours, const std::string& theirs) {
  const std::string prefix = "load_lora_adapter: ";
  const std::string a = normalised(ours, prefix), b = normalised(theirs, prefix);
  // The unknown module that is met first depends on the order of a set, too.
  const std::string none = "get_hidden_dim not implemented for w";
  return a == b || (a.starts_with(none) && b.starts_with(none));
}

const std::set<std::string>& sglang_disagreements() {
  static const std::set<std::string> kLabels = read_disagreements();
  return kLabels;
}

}  // namespace moelora::test

#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/engine/plan.h"
#include "lib/engine/vllm/causes.h"

namespace moelora::vllm {

// What the server's own code raises while it loads an adapter. Never leaves this folder: steps end
// in a Raised value (raised_by).
struct Raised : std::exception {
  Raised(std::string_view a_type, std::string a_text = {})
      : type(a_type), text(std::move(a_text)) {}
  const char* what() const noexcept override { return text.c_str(); }
  std::string type, text;
};

inline Raised assertion_error() { return Raised("AssertionError"); }

inline Raised none_has_no(const std::string& attribute) {
  return Raised("AttributeError", "'NoneType' object has no attribute '" + attribute + "'");
}

template <class F>
std::optional<Raised> raised_by(F&& step) {
  try {
    step();
    return std::nullopt;
  } catch (const Raised& raised) {
    return raised;
  }
}

// A PlanEvent whose tensors are still indices into the weights file.
struct LoadEvent {
  const Cause* cause;
  Effect effect = Effect::refused;
  std::string detail;
  std::vector<uint32_t> tensors;  // empty: the adapter as a whole
  std::optional<Refusal> refusal;
};

inline LoadEvent refused(const Cause* cause, std::string_view stage, const Raised& raised,
                         std::string detail, std::vector<uint32_t> tensors = {}) {
  return {cause, Effect::refused, std::move(detail), std::move(tensors),
          Refusal{std::string(stage), raised.type, raised.text, false}};
}

// Adds `event`, or its tensors alone where one with its cause, effect, stage and type is there.
inline void join(std::vector<LoadEvent>& events, LoadEvent event) {
  const auto step = [](const LoadEvent& e) {
    return e.refusal ? std::pair(e.refusal->stage, e.refusal->type)
                     : std::pair<std::string, std::string>();
  };
  for (LoadEvent& other : events)
    if (other.cause == event.cause && other.effect == event.effect && step(other) == step(event)) {
      other.tensors.insert(other.tensors.end(), event.tensors.begin(), event.tensors.end());
      return;
    }
  events.push_back(std::move(event));
}

}  // namespace moelora::vllm

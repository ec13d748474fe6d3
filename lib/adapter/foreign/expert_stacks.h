#pragma once

#include <map>
#include <string>
#include <utility>

#include "lib/adapter/config/adapter_config.h"
#include "lib/adapter/dialect.h"
#include "lib/adapter/tensor_name.h"

namespace moelora {

// For dialects that hold one side of an expert's pair once for all experts and the other side once
// for each: gathers the numbered 2-D factors, "...experts.7.gate_proj", and stacks them into one
// [E, ..] as the layouts with 3-D tensors have it.
class ExpertStacks {
 public:
  explicit ExpertStacks(const ForeignAdapter& in)
      : config_(parse_adapter_config(in.config, in.where)), has_base_(in.spec != nullptr) {}

  // `path` is of the form numbered.
  void add(const std::string& name, const ExpertPath& path, Side side, const Tensor& factor);

  // Throws Error where a number is missing, shapes differ, or alpha_pattern gives an expert an
  // alpha of its own, for which a stack has no place. Notes that the count is not checked where no
  // base model is known: the layouts compare it with the base's.
  void put_all(Translation& out) const;

 private:
  struct Member {
    std::string name, module;
    Tensor factor;
  };
  using Members = std::map<int64_t, Member>;  // by expert

  Tensor stacked(const std::string& module, const Members& members) const;
  void check_alphas(const std::string& module, const Members& members) const;

  AdapterConfig config_;
  bool has_base_;
  std::map<std::pair<std::string, Side>, Members> stacks_;  // by "...experts.gate_proj" and side
};

// A factor that all experts share, as those layouts have it: with a leading 1.
Tensor shared_factor(const std::string& name, const Tensor& factor);

}  // namespace moelora

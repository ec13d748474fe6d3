#include "lib/adapter/foreign/expert_stacks.h"

#include <fmt/core.h>

#include <vector>

#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"

namespace moelora {

void ExpertStacks::add(const std::string& name, const ExpertPath& path, Side side,
                       const Tensor& factor) {
  if (path.projection == Projection::gate_up)
    throw Error(name,
                "joins gate and up of one expert in a file with factors for all, a form that no "
                "trainer is known to write: the order of their rows is not known",
                "save gate_proj and up_proj apart");
  const std::string stem = with_layer(path.stem, path.layer);
  const std::string module = fmt::format("{}.{}", stem, leaf_of(path.rest));
  Member member{name, fmt::format("{}.{}", stem, path.rest), factor};
  const auto [at, added] = stacks_[{module, side}].emplace(*path.expert, std::move(member));
  if (!added)
    throw Error(name, fmt::format("names the same factor as {}", at->second.name),
                "keep one of them");
}

Tensor ExpertStacks::stacked(const std::string& module, const Members& members) const {
  const Member& first = members.begin()->second;
  std::vector<Tensor> parts;
  parts.reserve(members.size());
  for (const auto& [expert, member] : members) {
    if (expert != static_cast<int64_t>(parts.size()))
      throw Error(member.name,
                  fmt::format("is of expert {} of {}, and that of expert {} is not there", expert,
                              module, parts.size()),
                  "an expert-parallel rank's part saved as the whole? gather the experts of all "
                  "ranks");
    if (member.factor.rank() != 2 || member.factor.shape() != first.factor.shape())
      throw Error(member.name,
                  fmt::format("has shape {}, expected two dims, {} as those of {}",
                              to_string(member.factor.shape()), to_string(first.factor.shape()),
                              first.name),
                  "the factors that share the other side's have one shape");
    if (member.factor.dtype() != first.factor.dtype())
      throw Error(member.name,
                  fmt::format("is {}, and {} is {}", dtype_name(member.factor.dtype()), first.name,
                              dtype_name(first.factor.dtype())),
                  "save the adapter again with one dtype");
    parts.push_back(member.factor);
  }
  return Tensor::stack(parts);
}

void ExpertStacks::check_alphas(const std::string& module, const Members& members) const {
  if (config_.alpha_pattern.empty()) return;
  const double alpha = config_.scaling(module).alpha;
  for (const auto& entry : members) {
    const Member& member = entry.second;
    if (const double own = config_.scaling(member.module).alpha; own != alpha)
      throw Error(member.name,
                  fmt::format("has alpha {} by alpha_pattern, {} has {}", own, module, alpha),
                  "a factor that all experts share needs one alpha for all: take the entries of "
                  "single experts out of alpha_pattern");
  }
}

void ExpertStacks::put_all(Translation& out) const {
  if (!has_base_ && !stacks_.empty())
    out.notes.push_back(
        fmt::format("without a base model, the highest number says that there are {} experts: "
                    "whether the last ones are missing is not checked",
                    stacks_.begin()->second.size()));
  for (const auto& [key, members] : stacks_) {
    const auto& [module, side] = key;
    check_alphas(module, members);
    put(out, members.begin()->second.name, lora_name(module, side), stacked(module, members));
  }
}

Tensor shared_factor(const std::string& name, const Tensor& factor) {
  if (factor.rank() == 2) return factor.unsqueeze(0);
  if (factor.rank() == 3 && factor.dim(0) == 1) return factor;
  throw Error(name,
              fmt::format("has shape {}, expected two dims, or three of which the first is 1: it "
                          "is one matrix for all experts",
                          to_string(factor.shape())),
              "where it has a matrix for each expert, the other side must have one too");
}

}  // namespace moelora

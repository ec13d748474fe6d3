#pragma once

#include <optional>
#include <string>

#include "lib/forward/experts.h"
#include "lib/forward/family_section.h"
#include "lib/forward/router.h"

namespace moelora {

// gated, with the activation of a family's MLPs ("activation", else the config's), and no sizes.
MoeLayer activation_of(const FamilySection& family);

// down(f(gate x) * up x), gate and up each or as one Linear [gate; up]; without a gate
// down(f(up x)).
class GatedMlp {
 public:
  // `section` names the Linears below "path": "gate", "up", "down", or "gate_up". Without a section
  // all have transformers' usual names.
  GatedMlp(const FamilySection* section, const FamilySection& family, const std::string& path);

  template <class T>
  Matrix<T> compute(const LayerPass<T>& pass, const Matrix<T>& x) const;

 private:
  std::string gate_, up_, gate_up_, down_, scaled_by_;
  MoeLayer activation_;  // gated and its activation alone
};

// The second half of a layer: a dense MLP, or routed experts and what every token passes beside
// them ("mlp", "shared", "router" of the family's section).
class FeedForward {
 public:
  explicit FeedForward(const FamilySection& family);

  template <class T>
  Matrix<T> compute(const LayerPass<T>& pass, const Matrix<T>& x) const;

 private:
  template <class T>
  Matrix<T> mixed(const LayerPass<T>& pass, const Matrix<T>& x) const;

  std::vector<bool> moe_;
  std::optional<GatedMlp> dense_, shared_;
  std::string shared_gate_;
  std::optional<Router> router_;
  MoeLayer experts_;
};

}  // namespace moelora

#include "lib/forward/feed_forward.h"

#include <fmt/format.h>

#include "lib/numeric/moe_forward.h"

namespace moelora {
namespace {

std::string below(const std::string& path, const std::string& name) {
  return name.empty() ? name : path + "." + name;
}

}  // namespace

MoeLayer activation_of(const FamilySection& family) {
  std::string name = family.text("activation");
  for (const char* key : {"hidden_act", "hidden_activation", "activation_function"})
    if (const auto found = name.empty() ? family.config(key) : std::nullopt) name = found->string();
  if (name.empty()) name = "silu";
  const auto known = activation_from_name(name);
  if (!known)
    throw Error(family.base().origin, fmt::format("the activation {} is not known here", name));
  MoeLayer out;
  out.activation = *known;
  return out;
}

GatedMlp::GatedMlp(const FamilySection* section, const FamilySection& family,
                   const std::string& path)
    : activation_(activation_of(family)) {
  const auto name = [&](std::string_view key, std::string_view usual) {
    return below(path, section == nullptr ? std::string(usual) : section->text(key, usual));
  };
  down_ = name("down", "down_proj");
  gate_up_ = name("gate_up", "");
  if (!gate_up_.empty()) return;
  gate_ = name("gate", "gate_proj");
  up_ = name("up", "up_proj");
}

template <class T>
Matrix<T> GatedMlp::compute(const LayerPass<T>& pass, const Matrix<T>& x) const {
  Matrix<T> gate, up;
  if (gate_up_.empty()) {
    gate = pass.linear(gate_, x);
    up = pass.linear(up_, x);
  } else {
    const Matrix<T> both = pass.linear(gate_up_, x);
    gate = both.leftCols(both.cols() / 2);
    up = both.rightCols(both.cols() / 2);
  }
  Matrix<T> hidden = gate.binaryExpr(up, [&](T g, T u) { return activate(activation_, g, u); });
  pass.round(hidden);
  return pass.linear(down_, hidden);
}

FeedForward::FeedForward(const FamilySection& family) : moe_(family.spec().moe_layers) {
  const auto mlp = family.find("mlp"), shared = family.find("shared");
  if (mlp) mlp->allow_only({"path", "gate", "up", "down", "gate_up"});
  dense_.emplace(mlp ? &*mlp : nullptr, family, mlp ? mlp->text("path", "mlp") : "mlp");
  if (shared && shared->flag("if", true)) {
    shared->allow_only({"path", "gate", "up", "down", "gate_up", "scaled_by", "if"});
    shared_.emplace(&*shared, family, shared->text("path", "mlp.shared_experts"));
    shared_gate_ = shared->text("scaled_by");
  }
  if (family.spec().experts == 0) return;
  const auto router = family.find("router");
  if (!router) family.fail("router", "is missing, and the family has routed experts");
  router_.emplace(*router);
  experts_ = moe_layer(family.spec(), family.base().config);
}

// With a gate a sigmoid of one number a token scales the shared expert's output (Qwen2-MoE).
template <class T>
Matrix<T> FeedForward::mixed(const LayerPass<T>& pass, const Matrix<T>& x) const {
  Matrix<T> out = run_experts(experts_, pass, router_->choose(pass, x), x);
  if (!shared_) return out;
  Matrix<T> shared = shared_->compute(pass, x);
  if (!shared_gate_.empty()) {
    const Matrix<T> gate = pass.linear(shared_gate_, x);
    for (int64_t t = 0; t < x.rows(); ++t) shared.row(t) /= T{1} + std::exp(-gate(t, 0));
  }
  return out + shared;
}

template <class T>
Matrix<T> FeedForward::compute(const LayerPass<T>& pass, const Matrix<T>& x) const {
  return moe_[static_cast<size_t>(pass.layer())] ? mixed(pass, x) : dense_->compute(pass, x);
}

template Matrix<float> GatedMlp::compute(const LayerPass<float>&, const Matrix<float>&) const;
template Matrix<double> GatedMlp::compute(const LayerPass<double>&, const Matrix<double>&) const;
template Matrix<float> FeedForward::compute(const LayerPass<float>&, const Matrix<float>&) const;
template Matrix<double> FeedForward::compute(const LayerPass<double>&, const Matrix<double>&) const;

}  // namespace moelora

#pragma once

#include <compare>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lib/adapter/config/adapter_config.h"
#include "lib/adapter/scaling.h"
#include "lib/base/tensor.h"
#include "lib/model/model_spec.h"

namespace moelora {

// The canonical form in the middle of every conversion. Shapes: A [rank, in], B [out, rank],
// delta W [out, in] = scale * B A.

enum class Side : uint8_t { A, B };
char side_letter(Side side);

// A or B of one projection for all experts of a layer. A shared outer factor (one matrix for every
// expert) is stored once. An expert without LoRA has an empty part (rank() == 0).
struct Factor {
  std::vector<Tensor> parts;  // one entry per expert, or a single one when shared
  bool shared = false;

  const Tensor& at(int64_t expert) const { return parts[shared ? 0 : static_cast<size_t>(expert)]; }
  bool has(int64_t expert) const { return at(expert).rank() != 0; }
};

struct DensePair {
  Tensor a, b;
  Scaling scaling;
  bool parameter = false;  // a bare Parameter (target_parameters), e.g. the router of gpt-oss
};

struct ExpertPair {
  Factor a, b;
  std::vector<Scaling> scaling;  // one per expert, or a single one when all are equal

  const Scaling& scaling_of(int64_t expert) const {
    return scaling[scaling.size() == 1 ? 0 : static_cast<size_t>(expert)];
  }
  void merge_scaling();  // to a single one where all are equal
};

struct ExpertKey {
  int layer;
  Projection projection;
  friend auto operator<=>(const ExpertKey&, const ExpertKey&) = default;
};

// What an adapter file holds besides low-rank pairs.
enum class ExtraKind : uint8_t {
  embedding_factor,  // lora_embedding_A [r, V], lora_embedding_B [H, r]
  base_weight,       // base_layer.weight saved with a resized or targeted embedding
  saved_module,      // modules_to_save: replaces the module
  lora_bias,         // lora_B.bias [out]
  magnitude,         // DoRA's lora_magnitude_vector [out]
  other,
};
std::string_view extra_kind_name(ExtraKind kind);

struct Extra {
  ExtraKind kind;
  Tensor tensor;
};

// How the two sides of stacked pairs (peft-params) were read, and what decided lora_B's order.
struct StackedForm {
  Roles roles;
  BOrder b_order;                        // of the first parameter where it matters
  std::map<ExpertKey, BOrder> b_orders;  // of each, where they differ; empty where one is of all
  // "marked", "given", "no matter" (E or r is 1), "stamped" or "fingerprint" (of the writer,
  // lib/adapter/b_order.h), or "assumed"
  std::string_view b_order_from;
};

struct Adapter {
  // Compiled once in the source file rather than in every file that uses it.
  Adapter();
  Adapter(const Adapter&);
  Adapter(Adapter&&) noexcept;
  Adapter& operator=(const Adapter&);
  Adapter& operator=(Adapter&&) noexcept;
  ~Adapter();

  AdapterConfig config;
  std::map<std::string, DensePair> dense;  // by module path: "model.layers.0.self_attn.q_proj"
  std::map<ExpertKey, ExpertPair> experts;
  std::map<std::string, Extra> extras;  // by name without "base_model.model."

  int64_t expert_count = 0;  // E, 0 without expert factors
  std::string expert_stem;   // as found, with "{layer}": "model.layers.{layer}.mlp.experts"
  // Row order of Projection::gate_up factors; unknown for PEFT's parameters without a base model.
  std::optional<GateUpOrder> gate_up_order;
  std::optional<StackedForm> stacked;  // of a peft-params file

  std::string stem(int layer) const;
  bool has(Projection projection) const;  // in any layer
};

// Rank of one factor part: rows of A, columns of B.
int64_t factor_rank(const Tensor& part, Side side);

// `part` with zeros up to a higher rank: rows of A, columns of B.
Tensor pad_rank(const Tensor& part, Side side, int64_t rank);

// All experts of a factor as one tensor [E, ..]: shared ones repeated, absent ones zero, lower
// ranks padded with zeros to `rank`.
Tensor stack_experts(const Factor& factor, Side side, int64_t experts, int64_t rank);

// The largest rank of any expert of the pair.
int64_t max_rank(const ExpertPair& pair);

// Same dtype, shape and bytes. Equal recipes are recognized without reading.
bool identical(const Tensor& a, const Tensor& b);

// Whether every pair is identical. Stops at the first that is not, looking at one pair before
// reading the rest, since factors that differ mostly differ at once.
bool all_identical(std::span<const std::pair<Tensor, Tensor>> pairs, int threads);

}  // namespace moelora

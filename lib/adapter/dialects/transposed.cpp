// PEFT's names with the axes of JAX: A [in, r], B [r, out]. Names do not tell; shapes do, with the
// config's rank, or with the base model's widths.

#include <fmt/core.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "lib/adapter/config/adapter_config.h"
#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/tensor_name.h"

namespace moelora {
namespace {

using Entry = TensorMap::value_type;

// A factor: what it is of, and its last two extents.
struct Factor2 {
  std::string_view module;
  Side side = Side::A;
  int rank = 0;  // dims
  int64_t rows = 0, columns = 0;
};

std::optional<Factor2> factor_of(const Entry& entry) {
  const auto [module, part] = view_tensor_name(entry.first);
  const bool a = part == TensorPart::lora_a || part == TensorPart::embedding_a;
  if (!a && part != TensorPart::lora_b && part != TensorPart::embedding_b) return std::nullopt;
  const Tensor& tensor = entry.second;
  Factor2 out{module, a ? Side::A : Side::B, tensor.rank()};
  if (out.rank != 2 && out.rank != 3) return out;
  out.rows = tensor.dim(out.rank - 2);
  out.columns = tensor.dim(out.rank - 1);
  return out;
}

enum class Vote : uint8_t { transposed, peft, none };

// What a pair says of a file. `judge` takes A and B of one module.
template <class Range, class Judge>
bool all_say_transposed(const Range& entries, Judge&& judge) {
  std::optional<Factor2> a;
  bool out = false;
  for (const Entry* entry : entries) {
    const auto factor = factor_of(*entry);
    if (!factor) continue;
    if (factor->side == Side::A) {
      a = factor;
      continue;
    }
    if (!a || a->module != factor->module) continue;
    const Vote vote = judge(*a, *factor);
    if (vote == Vote::peft) return false;
    out = out || vote == Vote::transposed;
  }
  return out;
}

// A square pair, and one whose rank is as large as its input, tell nothing.
Vote by_rank(const Factor2& a, const Factor2& b, int64_t r) {
  if (a.rank != b.rank || a.rows == 0) return Vote::peft;
  const bool peft = a.rows == r && b.columns == r;
  const bool transposed = a.columns == r && b.rows == r;
  if (!transposed) return Vote::peft;
  return peft || a.rows <= r ? Vote::none : Vote::transposed;
}

// How many experts there are is not known, so that only E*r, which both hold, tells.
Vote by_stack(const Factor2& a, const Factor2& b, int64_t r) {
  const bool peft = a.rows == b.columns;
  const bool transposed = a.columns == b.rows && a.columns % r == 0;
  if (!transposed) return Vote::peft;
  return peft ? Vote::none : Vote::transposed;
}

std::optional<AdapterConfig> parsed(const Json& config) try {
  if (!config.is(Json::Kind::object)) return std::nullopt;
  return parse_adapter_config(config, std::string(kConfigName));
} catch (const Error&) {
  return std::nullopt;
}

// A pattern of the config that cannot be read is for who reads the file.
bool fits(std::span<const Entry* const> samples, const Json& json) try {
  const auto config = parsed(json);
  return config && all_say_transposed(samples, [&](const Factor2& a, const Factor2& b) {
           const int64_t r = config->scaling(std::string(a.module)).rank;
           return is_expert_parameter(a.module) ? by_stack(a, b, r) : by_rank(a, b, r);
         });
} catch (const Error&) {
  return false;
}

// ---- what the base model says ----

struct Widths {
  int64_t in, out;
};

std::optional<Widths> widths_of(const ModelSpec& spec, std::string_view module) {
  const LinearSpec* linear = spec.find_linear(module);
  if (linear == nullptr) linear = spec.find_linear(spec.normalised(std::string(module)));
  if (linear != nullptr) return Widths{linear->in, linear->out};
  const auto path = parse_expert_path(module);
  if (!path || !path->projection || spec.experts == 0) return std::nullopt;
  return Widths{spec.in_dim(*path->projection), spec.out_dim(*path->projection)};
}

Vote by_widths(const Factor2& a, const Factor2& b, const ModelSpec& spec) {
  const auto widths = widths_of(spec, a.module);
  if (!widths) return Vote::none;
  const bool peft = a.columns == widths->in && b.rows == widths->out;
  const bool transposed = a.rows == widths->in && b.columns == widths->out;
  if (!transposed) return Vote::peft;
  return peft ? Vote::none : Vote::transposed;
}

bool fits_base(const ForeignAdapter& in) {
  std::vector<const Entry*> entries;
  entries.reserve(in.tensors.size());
  for (const Entry& entry : in.tensors) entries.push_back(&entry);
  return all_say_transposed(
      entries, [&](const Factor2& a, const Factor2& b) { return by_widths(a, b, *in.spec); });
}

// ---- reading ----

[[noreturn]] void refuse(const Entry& entry, const Factor2& factor, const std::string& what) {
  throw Error(entry.first + " " + to_string(entry.second.shape()),
              fmt::format("is not [{}]: {}", factor.side == Side::A ? "in, r" : "r, out", what),
              "A [in, r] and B [r, out] of every module, or PEFT's A [r, in] and B [out, r] of "
              "every one: save the adapter in one of the two");
}

void check(const Entry& entry, const Factor2& factor, int64_t r, const ModelSpec* spec) {
  const bool a = factor.side == Side::A;
  const int64_t rank = a ? factor.columns : factor.rows, width = a ? factor.rows : factor.columns;
  const bool parameter = is_expert_parameter(factor.module);
  if (factor.rank != 2 && factor.rank != 3) refuse(entry, factor, "it has neither 2 nor 3 dims");
  if (parameter ? rank % r != 0 : rank != r)
    refuse(entry, factor,
           fmt::format("its rank would be {}, and adapter_config.json says {}", rank, r));
  const auto widths = spec != nullptr ? widths_of(*spec, factor.module) : std::nullopt;
  if (!widths) return;
  const int64_t expected = a ? widths->in : widths->out;
  if (width != expected)
    refuse(
        entry, factor,
        fmt::format("the module of this base model has {} {}", expected, a ? "inputs" : "outputs"));
}

void read(const ForeignAdapter& in, Translation& out) {
  const AdapterConfig config = parse_adapter_config(in.config, in.where);
  for (const Entry& entry : in.tensors) {
    const auto factor = factor_of(entry);
    if (!factor) {
      out.tensors.emplace(entry);
      continue;
    }
    check(entry, *factor, config.scaling(std::string(factor->module)).rank, in.spec);
    out.tensors.emplace(entry.first, entry.second.transpose(factor->rank - 2, factor->rank - 1));
  }
}

}  // namespace

const Dialect dialects::transposed = {
    .id = "transposed",
    .whose = "an exporter of transposed factors",
    .names = "PEFT's, A [in, r] and B [r, out]",
    .shapes = "A [in, r], B [r, out]; of experts A [E, in, r], B [E, r, out]",
    .sources = "Flax's and JAX's kernels [in, out]",
    .advice = "",
    .fits = fits,
    .fits_base = fits_base,
    .read = read,
};

}  // namespace moelora

#include "lib/adapter/expert_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "lib/adapter/expert_collector.h"
#include "lib/adapter/expert_factors.h"
#include "lib/adapter/stacked_pairs.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

constexpr std::string_view kBelow = "mlp";  // the module of DBRX's parameters

const ModelSpec& spec_with_rows(std::span<const ExpertTensor> tensors, const ReadContext& context) {
  const ExpertTensor& first = tensors.front();
  if (context.spec == nullptr)
    throw Error(first.name,
                "is of experts that are rows of one matrix, and how many experts these are is not "
                "known",
                {"name the base model with ", Option::base});
  const ModelSpec& spec = *context.spec;
  const bool rows = spec.memory.axes == ExpertAxes::rows;
  const bool below = parent_of(parameter_name(&spec, Projection::down)) == kBelow;
  for (const ExpertTensor& t : tensors) {
    if (rows && is_row_parameter(t) == below) continue;
    throw Error(
        t.name,
        fmt::format("is no parameter of the experts of this base model, a {}", spec.model_type),
        check_base());
  }
  return spec;
}

// Which parameter each pair of a layer is, innermost first. All have the same shapes: only the
// number of pairs and the config tell.
std::vector<StoredProjection> parameters_of(std::span<const StackedPair> layer,
                                            const ReadContext& context) {
  std::vector<StoredProjection> all = stored_projections(context.spec->memory);
  for (size_t i = 0; i < layer.size(); ++i)
    if (layer[i].nesting != static_cast<int>(layer.size() - 1 - i))
      throw Error(layer[i].a->name,
                  fmt::format("stands in {} base_layer, and the pairs of layer {} are {}: one of "
                              "another depth is missing",
                              layer[i].nesting, layer[i].layer, layer.size()),
                  "the file is incomplete: save the adapter again");
  if (layer.size() == all.size()) return all;
  const std::string stem = with_layer(layer.front().a->path.stem, layer.front().layer);
  std::vector<StoredProjection> named;
  for (const StoredProjection& p : all)
    if (ends_in_any(parameter_path(context.spec, stem, p.projection),
                    context.config.target_parameters))
      named.push_back(p);
  if (named.size() == layer.size()) return named;
  std::vector<std::string> names;
  for (const StoredProjection& p : all) names.push_back(p.name);
  throw Error(
      layer.front().a->name,
      fmt::format(
          "layer {} has pairs of {} of its experts' parameters, and target_parameters names {} of "
          "{}: shapes do not tell which they are",
          layer.front().layer, layer.size(), named.size(), fmt::join(names, ", ")),
      "name those that were trained in target_parameters of adapter_config.json");
}

void check_shapes(const StackedPair& pair, const StoredProjection& p, const ModelSpec& spec) {
  const Shape whole = spec.parameter_shape(spec.memory, p.projection);
  if (pair.b_dim() == whole[0] && pair.a_dim() == whole[1]) return;
  throw Error(pair.a->name,
              fmt::format("and its lora_B adapt a matrix [{}, {}], but {} of this base "
                          "model is {}",
                          pair.b_dim(), pair.a_dim(), p.name, to_string(whole)),
              check_base());
}

// Of each layer in turn.
template <class F>
void for_layers(const std::vector<StackedPair>& pairs, F&& visit) {
  for (auto first = pairs.begin(); first != pairs.end();) {
    const auto last = std::find_if(
        first, pairs.end(), [&](const StackedPair& pair) { return pair.layer != first->layer; });
    visit(std::span(first, last));
    first = last;
  }
}

}  // namespace

bool is_row_parameter(const ExpertTensor& tensor) {
  return tensor.path.form == ExpertPath::Form::parameters && tensor.path.rest.starts_with(kBelow);
}

void read_expert_rows(std::span<const ExpertTensor> tensors, const ReadContext& context,
                      Adapter& adapter) {
  const ModelSpec& spec = spec_with_rows(tensors, context);
  const std::vector<StackedPair> pairs = pair_up(tensors);
  ExpertCollector collector(context);
  for_layers(pairs, [&](std::span<const StackedPair> layer) {
    const std::vector<StoredProjection> parameters = parameters_of(layer, context);
    for (size_t i = 0; i < layer.size(); ++i) {
      const StackedPair& pair = layer[i];
      const Projection p = parameters[i].projection;
      check_shapes(pair, parameters[i], spec);
      const std::string path = parameter_path(&spec, with_layer(pair.a->path.stem, pair.layer), p);
      const Tensor &a = pair.a->tensor, &b = pair.b->tensor;
      const Tensor rows = b.reshape({spec.experts, spec.intermediate, b.dim(1)});
      const bool down = p == Projection::down;
      const std::vector<Tensor> own = (down ? rows.transpose(1, 2) : rows).unstack();
      const std::vector<Tensor> outer = {down ? a.transpose(0, 1) : a};
      collector.add_all(*pair.a, p, down ? own : outer, !down, path);
      collector.add_all(*pair.b, p, down ? outer : own, down, path);
    }
  });
  collector.finish(adapter);
}

std::pair<Tensor, Tensor> expert_rows(const ExpertKey& key, const ExpertPair& pair,
                                      const ModelSpec& spec) {
  const bool down = key.projection == Projection::down;
  const Tensor& outer = outer_part(
      key, pair, spec.experts,
      fmt::format("{} has all experts as rows of one matrix, so that one lora_A of PEFT's serves "
                  "all",
                  spec.model_type));
  const int64_t rank = max_rank(pair);
  const Tensor own =
      stack_experts(down ? pair.a : pair.b, down ? Side::A : Side::B, spec.experts, rank);
  return {down ? outer.transpose(0, 1) : outer,
          (down ? own.transpose(1, 2) : own).reshape({spec.experts * spec.intermediate, rank})};
}

}  // namespace moelora

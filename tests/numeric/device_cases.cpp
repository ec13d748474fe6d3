#include "tests/numeric/device_cases.h"

#include <doctest/doctest.h>

#include "lib/numeric/moe_forward.h"
#include "tests/numeric/stage_check.h"

namespace moelora::test {
namespace {

std::vector<double> in_double(const std::vector<float>& values) {
  return std::vector<double>(values.begin(), values.end());
}

}  // namespace

void check_on_device(Device& device, const LayerCase& c, const MadeLayer& made, int64_t tokens,
                     const DeviceCase& how) {
  CAPTURE(c.name);
  CAPTURE(tokens);
  CAPTURE(static_cast<int>(how.path));
  CAPTURE(how.keep_delta);
  const Routing routing = made_routing(c, tokens);
  const std::vector<double> x = made_tokens(c, tokens);
  const std::vector<float> x32(x.begin(), x.end());
  const bool naive = how.path == kernels::Path::naive;

  DeviceForwardOptions options;
  options.path = how.path;
  options.keep_delta = how.keep_delta;
  const MoeStages<float> stages =
      forward_device(device, made.layer, made.weights, routing, x32, options).stages;
  for (const StageError& error :
       check_stages(made.layer, made.weights, routing, x32, stages, {!naive})) {
    CAPTURE(error.stage);
    CAPTURE(static_cast<int>(error.projection.value_or(Projection::gate_up)));
    CAPTURE(error.pair);
    CAPTURE(error.column);
    CHECK(error.worst <= 1);
    CHECK(error.relative <= (naive ? 1e-5 : 5e-3));
  }
  const auto exact = forward_cpu<double>(made.layer, made.weights, routing, x).out;
  CHECK(relative_error(in_double(stages.out), exact) <= (naive ? 1e-5 : 1e-2));
}

void check_all_paths(Device& device, const LayerCase& c, const MadeLayer& made, int64_t tokens) {
  for (const kernels::Path path : {kernels::Path::naive, kernels::Path::per_expert,
                                   kernels::Path::gathered, kernels::Path::batched}) {
    check_on_device(device, c, made, tokens, {path, false});
    if (path != kernels::Path::naive) check_on_device(device, c, made, tokens, {path, true});
  }
}

}  // namespace moelora::test

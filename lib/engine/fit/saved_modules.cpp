#include "lib/engine/fit/saved_modules.h"

#include <cmath>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/io/weights.h"
#include "lib/model/base_model.h"

namespace moelora::fit {
namespace {

double distance(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = read_double(a), y = read_double(b);
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += (x[i] - y[i]) * (x[i] - y[i]);
  return std::sqrt(sum);
}

std::optional<Weights> base_weights(const BaseModel& base) {
  if (base.folder.empty()) return std::nullopt;
  try {
    return open_weights(base.folder, {"model"});
  } catch (const Error&) {  // a config.json alone
    return std::nullopt;
  }
}

}  // namespace

std::string base_weight_name(std::string name) {
  const size_t at = name.find(".base_layer.");
  return at == std::string::npos ? name : name.erase(at, 11);
}

std::optional<double> saved_change(const FitContext& context, const std::string& name,
                                   const Tensor& saved) {
  const std::optional<Weights> weights = base_weights(context.base);
  if (!weights) return std::nullopt;
  const std::string wanted = base_weight_name(name);
  const size_t dot = wanted.rfind('.');
  const LinearSpec* linear = context.spec.find_linear(wanted.substr(0, dot));
  for (const std::string& spelled :
       {wanted, linear == nullptr ? wanted : linear->hub + wanted.substr(dot)}) {
    const auto found = weights->tensors.find(spelled);
    if (found == weights->tensors.end() || found->second.shape() != saved.shape()) continue;
    return distance(saved, found->second);
  }
  return std::nullopt;
}

}  // namespace moelora::fit

#include "lib/diff/reports/metrics_json.h"

#include <cmath>

namespace moelora {

Json metrics_json(const Metrics& metrics) {
  Json::Members members{{"n", metrics.n}};
  for (const auto& [name, value] : metrics.named())
    members.emplace_back(name, std::isfinite(value) ? Json(value) : Json());
  return Json::object(std::move(members));
}

}  // namespace moelora

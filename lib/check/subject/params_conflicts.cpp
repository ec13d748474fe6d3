#include "lib/check/subject/params_conflicts.h"

namespace moelora {

std::vector<ParamsConflict> params_conflicts(const AdapterConfig& config) {
  std::vector<ParamsConflict> out;
  if (config.target_parameters.empty()) return out;
  const Json* dropout = config.json.find("lora_dropout");
  if (dropout != nullptr && dropout->is_number() && dropout->as_double() != 0)
    out.push_back({"lora_dropout", "is " + dropout->dump(-1), "lora_dropout != 0."});
  if (config.use_dora) out.push_back({"use_dora", "is true", "use_dora=True."});
  if (config.lora_bias) out.push_back({"lora_bias", "is true", "lora_bias=True."});
  if (config.fan_in_fan_out) out.push_back({"fan_in_fan_out", "is true", "fan_in_fan_out."});
  return out;
}

}  // namespace moelora

#include "lib/check/base_dtype.h"

namespace moelora {

std::string base_dtype(const Json& config) {
  for (const Json* at : {&config, config.find("text_config")}) {
    if (at == nullptr) continue;
    for (std::string_view key : {"dtype", "torch_dtype"})
      if (const Json* value = at->find(key); value != nullptr && value->is(Json::Kind::string))
        return value->as_string();
  }
  return "";
}

}  // namespace moelora

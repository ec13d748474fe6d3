#include "lib/forward/model_lora.h"

#include "lib/compare/meant_deltas.h"

namespace moelora {

ModelLora lora_of(const Adapter& adapter, const ModelSpec& spec) {
  return {meant_deltas(adapter, spec), adapter.extras};
}

}  // namespace moelora

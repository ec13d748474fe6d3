#pragma once

#include <cstdint>
#include <string>

#include "lib/adapter/convert.h"
#include "lib/engine/fit/engine_fit.h"

namespace moelora {

// An adapter made fit for one engine: the layout it serves for this base, and every repair of what
// it would refuse or compute wrongly. The deltas stay what they were: exactly where only zeros,
// names, order and powers of two are in play, else within one rounding of lora_B.
struct FittedAdapter {
  Adapter meant;  // as read, without what was dropped, under the names the engine reads
  Adapter adapter;
  Changes changes;
  const Layout* layout = nullptr;  // to write it in
  LayoutWriteOptions write;        // of that layout
};

// REQUIRES a base model: without one, or for what the engine cannot hold and --drop does not name,
// throws Error.
FittedAdapter fit_adapter(const LoadedAdapter& input, const FitOptions& options);

// The whole conversion of an input: fitted, planned in the chosen layout. `convert.to` and
// `convert.layout` are set by it.
struct FittedConversion {
  Adapter meant;
  Conversion conversion;  // its `adapter` is the fitted one
};
FittedConversion plan_fitted(LoadedAdapter input, const FitOptions& options, PlanOptions convert);

// Runs the engine's own plan on what the conversion would write to the folder `out`. Throws Error
// with the server's text when it would refuse the output, and with what becomes of the tensors when
// it would leave out, cut or misread any. Engines without a plan (peft) have nothing to say.
void check_served(const Conversion& conversion, const std::string& out, const FitOptions& options,
                  uint64_t max_shard_size);

}  // namespace moelora

#include "kernels/batch.h"
#include "kernels/moe_lora.h"

namespace moelora::kernels {
namespace {

Status open(int32_t device, Context** out, Failure* failure) noexcept {
  return guarded(failure, [&] { *out = std::make_unique<Context>(device).release(); });
}

void close(Context* context) noexcept { delete context; }

Status describe(Context* context, DeviceInfo* out, Failure* failure) noexcept {
  return guarded(failure, [&] { *out = context->describe(); });
}

Status layer_create(Context* context, const LayerShape* shape, Layer** out,
                    Failure* failure) noexcept {
  return guarded(failure, [&] {
    context->use();
    *out = std::make_unique<Layer>(*context, *shape).release();
  });
}

Status layer_load(Layer* layer, int64_t expert, const ExpertData* data, Failure* failure) noexcept {
  return guarded(failure, [&] {
    layer->context.use();
    layer->load(expert, *data);
  });
}

void layer_destroy(Layer* layer) noexcept { delete layer; }

Status batch_create(Layer* layer, const BatchInput* input, const Plan* plan, Batch** out,
                    Failure* failure) noexcept {
  return guarded(failure, [&] {
    layer->context.use();
    check_input(*input);
    auto batch = plan->path == Path::naive ? make_naive_batch(*layer, *input)
                                           : make_fast_batch(*layer, *input, *plan);
    if (plan->graph) batch->record();
    *out = batch.release();
  });
}

Status batch_run(Batch* batch, Failure* failure) noexcept {
  return guarded(failure, [&] {
    batch->layer.context.use();
    batch->launch();
    batch->layer.context.synchronize();
  });
}

Status batch_read(Batch* batch, Stage stage, Projection projection, float* out,
                  Failure* failure) noexcept {
  return guarded(failure, [&] {
    batch->layer.context.use();
    batch->read(stage, projection, out);
  });
}

struct Event {
  Event() { check(cudaEventCreate(&event), "make an event"); }
  ~Event() { cudaEventDestroy(event); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t event = nullptr;
};

float microseconds_of(Batch& batch, const Event& begin, const Event& end) {
  cudaStream_t stream = batch.layer.context.stream();
  check(cudaEventRecord(begin.event, stream), "record an event");
  batch.launch();
  check(cudaEventRecord(end.event, stream), "record an event");
  check(cudaEventSynchronize(end.event), "wait for the device");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, begin.event, end.event), "read a time");
  return milliseconds * 1000;
}

Status batch_time(Batch* const* batches, int32_t batch_count, int32_t warmup, int32_t count,
                  float* microseconds, Failure* failure) noexcept {
  return guarded(failure, [&] {
    if (batch_count < 1 || warmup < 0 || count < 0) stop(Status::bad_argument, "nothing to time");
    batches[0]->layer.context.use();
    const Event begin, end;
    for (int32_t run = 0; run < warmup + count; ++run) {
      const float time = microseconds_of(*batches[run % batch_count], begin, end);
      if (run >= warmup) microseconds[run - warmup] = time;
    }
  });
}

void batch_destroy(Batch* batch) noexcept { delete batch; }

constexpr Api kApi = {kVersion,     open,       close,         describe,
                      layer_create, layer_load, layer_destroy, batch_create,
                      batch_run,    batch_read, batch_time,    batch_destroy};

}  // namespace
}  // namespace moelora::kernels

extern "C" __attribute__((visibility("default"))) const moelora::kernels::Api*
moelora_cuda_api() noexcept {
  return &moelora::kernels::kApi;
}

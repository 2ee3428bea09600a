// Everything that reads bytes which others wrote, as functions that libFuzzer can call.
//
// A target takes any bytes and must return: whether they were taken, never a crash, never more
// memory than its limits allow. What it accepts it must write again to something that reads back
// equal; a target aborts where that does not hold.
//
// To add a decoder: one function, one row. fuzz_test.cc replays the kept corpus and mutates it;
// ops/fuzz runs a target under libFuzzer.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tutti::fuzz {

struct Target {
  std::string_view name;  // and folder of its corpus
  // Whether it took them.
  bool (*take)(std::string_view bytes);
  // Input to begin from, besides the corpus: valid, and some that is refused.
  std::vector<std::string> (*seeds)();
};

std::span<const Target> targets();
const Target* find_target(std::string_view name);

// Aborts with the target's name.
void require(bool holds, const char* what);

// One file a family.
bool take_worker_frame(std::string_view bytes);
bool take_coordinator_frame(std::string_view bytes);
bool take_rank_frame(std::string_view bytes);
bool take_serve_frame(std::string_view bytes);
std::vector<std::string> frame_seeds();

bool take_fact(std::string_view bytes);
bool take_record(std::string_view bytes);
std::vector<std::string> fact_seeds();
bool take_access(std::string_view bytes);
std::vector<std::string> record_seeds();
std::vector<std::string> access_seeds();

bool take_handover(std::string_view bytes);
std::vector<std::string> handover_seeds();

bool take_job_query(std::string_view bytes);
bool take_event_query(std::string_view bytes);
std::vector<std::string> job_query_seeds();
std::vector<std::string> event_query_seeds();

bool take_job_spec(std::string_view bytes);
bool take_override(std::string_view bytes);
bool take_cluster_config(std::string_view bytes);
std::vector<std::string> job_spec_seeds();
std::vector<std::string> override_seeds();
std::vector<std::string> cluster_config_seeds();

bool take_completion(std::string_view bytes);
bool take_chat(std::string_view bytes);
std::vector<std::string> completion_seeds();
std::vector<std::string> chat_seeds();

bool take_submit_body(std::string_view bytes);
bool take_cancel_body(std::string_view bytes);
bool take_fault_body(std::string_view bytes);
bool take_drain_body(std::string_view bytes);
bool take_token_body(std::string_view bytes);
bool take_rotation_body(std::string_view bytes);
std::vector<std::string> submit_body_seeds();
std::vector<std::string> cancel_body_seeds();
std::vector<std::string> fault_body_seeds();
std::vector<std::string> drain_body_seeds();
std::vector<std::string> token_body_seeds();
std::vector<std::string> rotation_body_seeds();

bool take_tokenizer(std::string_view bytes);
bool take_safetensors(std::string_view bytes);
bool take_model_config(std::string_view bytes);
bool take_token_file(std::string_view bytes);
std::vector<std::string> tokenizer_seeds();
std::vector<std::string> safetensors_seeds();
std::vector<std::string> model_config_seeds();
std::vector<std::string> token_file_seeds();

bool take_greeting(std::string_view bytes);
bool take_link(std::string_view bytes);
bool take_rings(std::string_view bytes);
std::vector<std::string> greeting_seeds();
std::vector<std::string> link_seeds();
std::vector<std::string> rings_seeds();

bool take_join(std::string_view bytes);
bool take_rank_devices(std::string_view bytes);
bool take_manifest(std::string_view bytes);
bool take_fault_file(std::string_view bytes);
bool take_log_file(std::string_view bytes);
bool take_step_lines(std::string_view bytes);
std::vector<std::string> join_seeds();
std::vector<std::string> rank_devices_seeds();
std::vector<std::string> manifest_seeds();
std::vector<std::string> fault_file_seeds();
std::vector<std::string> log_file_seeds();
std::vector<std::string> step_lines_seeds();

bool take_up_state(std::string_view bytes);
bool take_worker_state(std::string_view bytes);
bool take_ports(std::string_view bytes);
bool take_next_binary(std::string_view bytes);
bool take_rank_memory(std::string_view bytes);
bool take_event_stream(std::string_view bytes);
bool take_metrics(std::string_view bytes);
bool take_step_index(std::string_view bytes);
bool take_tensor_index(std::string_view bytes);
bool take_quantization(std::string_view bytes);
bool take_product_choices(std::string_view bytes);
bool take_weight_images(std::string_view bytes);
std::vector<std::string> up_state_seeds();
std::vector<std::string> worker_state_seeds();
std::vector<std::string> ports_seeds();
std::vector<std::string> next_binary_seeds();
std::vector<std::string> rank_memory_seeds();
std::vector<std::string> event_stream_seeds();
std::vector<std::string> metrics_seeds();
std::vector<std::string> step_index_seeds();
std::vector<std::string> tensor_index_seeds();
std::vector<std::string> quantization_seeds();
std::vector<std::string> product_choices_seeds();
std::vector<std::string> weight_images_seeds();

}  // namespace tutti::fuzz

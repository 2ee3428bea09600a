// The part of NCCL that kernels/collective uses, for the emulation (nccl.cc): non-blocking
// communicators between processes of one machine, grouped send and receive on streams, finalizing,
// abort.
//
// TUTTI_EMULATION_NCCL names what does not go well: forming_hangs, finalize_hangs, abort_hangs,
// asynchronous_error (of every group of transfers); several behind each other.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

enum ncclResult_t {
  ncclSuccess = 0,
  ncclUnhandledCudaError = 1,
  ncclSystemError = 2,
  ncclInternalError = 3,
  ncclInvalidArgument = 4,
  ncclInvalidUsage = 5,
  ncclRemoteError = 6,
  ncclInProgress = 7,
};
enum ncclDataType_t { ncclInt8 = 0 };
struct ncclUniqueId {
  char internal[128];
};
struct ncclConfig_t {
  int blocking;
};
#define NCCL_CONFIG_INITIALIZER \
  { 1 }
using ncclComm_t = struct EmulatedNccl*;

ncclResult_t ncclGetVersion(int* version);
const char* ncclGetErrorString(ncclResult_t result);
ncclResult_t ncclGetUniqueId(ncclUniqueId* id);
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error);
ncclResult_t ncclCommFinalize(ncclComm_t comm);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclGroupStart();
ncclResult_t ncclGroupEnd();
ncclResult_t ncclSend(const void* from, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclRecv(void* to, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream);

namespace tutti::emulation {

// How communicators of this process have ended.
struct NcclEnds {
  int destroyed = 0;
  int aborted = 0;
  int elsewhere = 0;  // by a thread whose device is not the communicator's
};
NcclEnds nccl_ends();

// Communicators of that rank have found an error from now on, whatever their streams do, as the
// library's own threads find one; -1: none has.
void find_nccl_error(int rank);

}  // namespace tutti::emulation
